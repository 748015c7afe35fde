"""Control flow: what goes in and out of a body is one with what the node takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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
    carried = dict.fromkeys(range(2, node.input_count))
    scanned = [0] * (node.output_count - len(carried))
    _iterate(node, body, carried, body.outputs[1:], [*carried.values(), *scanned])


@axes("Scan")
def scan(node: Context) -> None:
    """As Loop, with inputs taken slice by slice too; every scanned value along an axis of its own."""
    if node.opset < 9:
        node.freeze_all("Scan of batches")
        return
    body, count = node.attr("body"), node.attr("num_scan_inputs")
    carried: list[int | None] = [None] * (node.input_count - count)
    into = [*carried, *node.attr("scan_input_axes", [0] * count)]
    scanned = node.attr("scan_output_axes", [0] * (node.output_count - len(carried)))
    _iterate(node, body, dict(enumerate(into)), body.outputs, [*carried, *scanned])


def _iterate(
    node: Context,
    body: ir.Graph,
    into: Mapping[int, int | None],
    outputs: Sequence[ir.Value],
    out_of: Sequence[int | None],
) -> None:
    """Carried values are the same before, inside and after; scanned ones have an axis more outside.

    Args:
        node: The Loop or Scan.
        body: Its body, whose inputs stand as those of the node do.
        into: Which inputs go into the body, and along which axis they are scanned; None: carried.
        outputs: The outputs of the body that the node gives: those carried, then those scanned.
        out_of: Along which axes the outputs are scanned; None: carried.
    """
    inside = node.tracer.axes_of
    for i, along in into.items():
        _same(node, _each(node, node.axes(i) or (), along), inside(body.inputs[i]))
    node.tracer.walk(body)
    for k, (value, along) in enumerate(zip(outputs, out_of, strict=False)):
        _same(node, _each(node, node.out(k), along), inside(value))
    carried = [i for i, along in into.items() if along is None]
    for i, value in zip(carried, outputs, strict=False):
        _same(node, inside(body.inputs[i]), inside(value))


def _each(node: Context, axes: tuple[Axis, ...], along: int | None) -> tuple[Axis, ...]:
    """The axes of what is inside at one iteration; one that is iterated over stays."""
    if along is None or not axes:
        return axes
    along %= len(axes)
    node.freeze(axes[along])
    return (*axes[:along], *axes[along + 1 :])


def _same(node: Context, a: tuple[Axis, ...], b: tuple[Axis, ...]) -> None:
    if len(a) != len(b):
        for axis in (*a, *b):
            node.freeze(axis, f"{node.op} changes it")
        return
    for axis, other in zip(a, b, strict=True):
        node.unify(axis, other)
