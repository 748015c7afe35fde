"""Control flow: what goes in and out of a body is one with what the node takes and gives."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.dims.axis import Axis
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes


def _unify_all(node: Context, a: tuple[Axis, ...], b: tuple[Axis, ...], what: str) -> None:
    if len(a) != len(b):
        for axis in (*a, *b):
            node.freeze(axis, what)
        return
    for axis, other in zip(a, b, strict=True):
        node.unify(axis, other)


def _body(node: Context, name: str) -> ir.Graph:
    graph = node.attr(name)
    assert isinstance(graph, ir.Graph)
    return graph


def _inside(node: Context, value: ir.Value) -> tuple[Axis, ...]:
    """The axes of a value that a body gives back, and of a weight given back as it is."""
    return node.tracer.axes_of(value)


@axes("If")
def if_(node: Context) -> None:
    """Both branches give what the node gives."""
    for name in ("then_branch", "else_branch"):
        body = _body(node, name)
        node.tracer.walk(body)
        for i, value in enumerate(body.outputs):
            _unify_all(node, _inside(node, value), node.out(i), "the branches of If differ in it")


@axes("Loop")
def loop(node: Context) -> None:
    """Carried values are the same before, inside and after; scanned ones get a new first axis."""
    body = _body(node, "body")
    carried = node.input_count - 2
    for i in range(carried):
        _unify_all(
            node, node.axes(2 + i) or (), _inside(node, body.inputs[2 + i]), "Loop changes it"
        )
    node.tracer.walk(body)
    for i, value in enumerate(body.outputs[1:]):
        axes_inside, out = _inside(node, value), node.out(i)
        if i < carried:
            _unify_all(node, axes_inside, _inside(node, body.inputs[2 + i]), "Loop changes it")
            _unify_all(node, axes_inside, out, "Loop changes it")
        else:
            _unify_all(node, axes_inside, out[1:], "Loop changes it")
            node.freeze(out[0])


@axes("Scan")
def scan(node: Context) -> None:
    """As Loop, with inputs taken slice by slice along their first axis."""
    body = _body(node, "body")
    states = node.input_count - node.attr("num_scan_inputs")
    simple = not any(any(node.attr(name, ())) for name in ("scan_input_axes", "scan_output_axes"))
    if not simple or node.opset < 9:
        node.freeze_all("Scan along other axes than the first")
        return
    for i, value in enumerate(body.inputs):
        outside = node.axes(i) or ()
        if i >= states:
            node.freeze(outside[0])
            outside = outside[1:]
        _unify_all(node, outside, _inside(node, value), "Scan changes it")
    node.tracer.walk(body)
    for i, value in enumerate(body.outputs):
        axes_inside, out = _inside(node, value), node.out(i)
        if i < states:
            _unify_all(node, axes_inside, _inside(node, body.inputs[i]), "Scan changes it")
            _unify_all(node, axes_inside, out, "Scan changes it")
        else:
            _unify_all(node, axes_inside, out[1:], "Scan changes it")
            node.freeze(out[0])
