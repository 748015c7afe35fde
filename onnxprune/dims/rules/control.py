"""Control flow: what goes in and out of a body is one with what the node takes and gives."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxprune.dims.axis import Axis, Product, leaves
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes


@axes("If")
def if_(node: Context) -> None:
    """Both branches give what the node gives; with another rank (a `squeeze` in PyTorch), the same channels of it."""
    given: list[tuple[tuple[Axis, ...], tuple[Axis, ...]]] = []
    for name in ("then_branch", "else_branch"):
        body = node.attr(name)
        node.tracer.walk(body)
        given += [(node.tracer.axes_of(v), node.out(i)) for i, v in enumerate(body.outputs)]
    for inner, outer in sorted(given, key=lambda pair: len(pair[0]) != len(pair[1])):
        if len(inner) == len(outer):
            _same(node, inner, outer)
        else:
            ours, theirs = (set(leaves(Product(axes))) for axes in (inner, outer))
            for dim in ours ^ theirs:
                node.freeze(dim, f"{node.op} changes it")


@axes("Loop")
def loop(node: Context) -> None:
    """Inputs and body inputs: trip count, condition, carried; body outputs: condition, carried, scanned."""
    body = node.attr("body")
    _iterate(node, body, node.input_count, range(2, node.input_count), body.outputs[1:])


@axes("Scan")
def scan(node: Context) -> None:
    """As Loop, with inputs taken slice by slice along their first axis."""
    body = node.attr("body")
    if node.opset < 9 or any(
        any(node.attr(name, ())) for name in ("scan_input_axes", "scan_output_axes")
    ):
        node.freeze_all("Scan along other axes than the first")
        return
    states = node.input_count - node.attr("num_scan_inputs")
    _iterate(node, body, states, range(node.input_count), body.outputs)


def _iterate(
    node: Context, body: ir.Graph, states: int, inputs: range, outputs: Sequence[ir.Value]
) -> None:
    """Carried values are the same before, inside and after; scanned ones have a first axis more outside.

    Args:
        node: The Loop or Scan.
        body: Its body, whose inputs stand as those of the node do.
        states: Inputs before this one are carried.
        inputs: Which inputs go into the body.
        outputs: The outputs of the body that the node gives: those carried, then those scanned.
    """
    inside = node.tracer.axes_of
    carried = [i for i in inputs if i < states]
    for i in inputs:
        _same(node, _each(node, node.axes(i) or (), i >= states), inside(body.inputs[i]))
    node.tracer.walk(body)
    for k, value in enumerate(outputs):
        _same(node, _each(node, node.out(k), k >= len(carried)), inside(value))
    for i, value in zip(carried, outputs, strict=False):
        _same(node, inside(body.inputs[i]), inside(value))


def _each(node: Context, axes: tuple[Axis, ...], scanned: bool) -> tuple[Axis, ...]:
    """The axes of what is inside at one iteration; those iterated over stay."""
    for axis in axes[:scanned]:
        node.freeze(axis)
    return axes[scanned:]


def _same(node: Context, a: tuple[Axis, ...], b: tuple[Axis, ...]) -> None:
    if len(a) != len(b):
        for axis in (*a, *b):
            node.freeze(axis, f"{node.op} changes it")
        return
    for axis, other in zip(a, b, strict=True):
        node.unify(axis, other)
