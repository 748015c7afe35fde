"""Branches that are chosen while the model runs.

The gradient of an If is an If on the same condition. Each of its branches computes the branch of the
forward pass once more, goes backward through it, and gives back one gradient for every value that
either branch reads from outside:

    y = c ? f(x) : g(x)        dx = c ? f'(x)^T dy : g'(x)^T dy

A branch that does not run on the inputs that shapes were learnt from (an exporter's Squeeze that
fails unless its condition holds) is not known, and one whose results have another rank than those of
the branch taken does not fit what comes after. Taking one of them in the gradient model is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.backward import backward, drop_unused
from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.graph.flow import captured_values

_BRANCHES = ("then_branch", "else_branch")


@vjp("If")
def if_(call: Call, *dys: Tensor | None) -> Gradients:
    """See the module's text."""
    wanted = [
        value
        for value, asked in zip(captured_values(call.node), call.wanted[1:], strict=True)
        if asked
    ]
    bodies = {name: call.node.attributes[name].as_graph() for name in _BRANCHES}
    known = {name: _fits(call, body) for name, body in bodies.items()}
    if not any(known.values()):
        raise call.error("neither of its branches runs on the inputs that shapes are learnt from")
    branches: dict[str, Any] = {
        name: _backward_branch(call, body, dys, wanted)
        if known[name]
        else _refusal(call, name, wanted)
        for name, body in bodies.items()
    }
    results = iter(call.op.call("If", call.x, outputs=len(wanted), **branches))
    gradients: list[Tensor | None] = [None]
    for value, asked in zip(captured_values(call.node), call.wanted[1:], strict=True):
        result = next(results) if asked else None
        if result is not None and value.dtype is not None:
            result.value.type = ir.TensorType(value.dtype)
        gradients.append(result)
    return gradients


def _fits(call: Call, body: ir.Graph) -> bool:
    """Whether all values of a branch are known, and its results have the rank of the node's."""
    if any(value.shape is None for node in body for value in node.outputs if value.name):
        return False
    return all(
        inner.shape is not None and outer.shape is not None and len(inner.shape) == len(outer.shape)
        for inner, outer in zip(body.outputs, call.node.outputs, strict=True)
    )


def _backward_branch(
    call: Call, body: ir.Graph, dys: Sequence[Tensor | None], wanted: Sequence[ir.Value]
) -> ir.Graph:
    graph = body.clone(allow_outer_scope_values=True)
    graph.opset_imports.update(call.op.graph.opset_imports)
    op = Ops(graph, f"{call.op.unique_name('If')}/")
    seeds = [
        (Tensor(value, op), Tensor(dy.value, op))
        for value, dy in zip(graph.outputs, dys, strict=True)
        if dy is not None
    ]
    results = backward(op, list(graph), seeds, wanted)
    graph.outputs.clear()
    for value, result in zip(wanted, results, strict=True):
        given = op.zeros_like(Tensor(value, op)) if result is None else op.Identity(result)
        graph.outputs.append(given.value)
    drop_unused(graph)
    return graph


def _refusal(call: Call, name: str, wanted: Sequence[ir.Value]) -> ir.Graph:
    """A branch that fails when it is taken, in the words of its node's name."""
    graph = ir.Graph([], [], nodes=[], name="refusal", opset_imports={})
    op = Ops(graph, f"{call.op.unique_name('If')}/")
    for value in wanted:
        two = op.constant(np.zeros(2), value.dtype)
        failing = op.Reshape(two, [3])
        node = failing.value.producer()
        assert node is not None
        node.name = (
            f"no gradient through the {name} of {call.node.name!r}, which did not run before: "
            f"{node.name}"
        )
        graph.outputs.append(failing.value)
    return graph
