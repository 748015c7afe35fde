"""Reverse-mode differentiation of ONNX graphs.

`gradient` appends to a copy of a model the nodes that compute a loss and its gradients. What
happens between the loss and the targets is in `backward.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.backward import backward, drop_unused, is_float
from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.losses import Loss, Output
from onnxprune.autodiff.merge import merge
from onnxprune.autodiff.prepare import prepare
from onnxprune.autodiff.registry import NoGradientError
from onnxprune.autodiff.shapes import forget_shapes
from onnxprune.graph.flow import subgraphs

__all__ = ["gradient"]

_PREFIX = "backward/"


def gradient(
    model: ir.Model,
    loss: Loss | str,
    wrt: Sequence[str],
    *,
    feeds: Mapping[str, np.ndarray[Any, Any]] | None = None,
) -> ir.Model:
    """The model that computes a loss and its gradients, in ordinary ONNX ops.

    Its inputs are the model's and the loss's (labels, teacher outputs); its outputs are the loss, a
    scalar, and then one gradient for each of `wrt`, in that order and in the shape of what it
    belongs to, named `<name>.grad`. Axes that are dynamic in the model stay so where the model
    really runs at other sizes. Models below opset 18 are raised to it (node by node, see
    `opset.py`): the rules speak that language. Initializers stop being overridable inputs.

    The model is run once or twice, on small random inputs, to learn the shape of every value.

    Args:
        model: The forward model; it is left as it is.
        loss: What to differentiate, or the name of an output, whose elements are then summed.
        wrt: Names of floating-point initializers, inputs or intermediate values.
        feeds: Inputs to learn the shapes from, where random ones will not do.

    Returns:
        Forward and backward in one model.

    Raises:
        NoGradientError: A name is unknown or not floating-point, or an op between it and the loss
            has no rule.
        ModelError: onnxruntime does not run the model.
    """
    prepared = prepare(model, feeds)
    graph = prepared.graph
    values = {value.name: value for value in _values(graph)}
    targets = [_target(values, name) for name in wrt]
    op = Ops(graph, _unused_prefix(values))
    outputs = {value.name or "": Tensor(value, op) for value in graph.outputs}
    total, seeds = (Output(loss) if isinstance(loss, str) else loss).build(
        op, {**outputs, **{name or "": Tensor(value, op) for name, value in values.items()}}
    )
    merge(graph, f"{op.prefix}merged/", {*targets, *(seeded.value for seeded, _ in seeds)})
    gradients = backward(op, list(graph), seeds, targets)
    results = [total] + [
        op.zeros_like(Tensor(target, op)) if found is None else found
        for target, found in zip(targets, gradients, strict=True)
    ]
    names = ["loss"] + [f"{target.name}.grad" for target in targets]
    shapes = [ir.Shape(()), *(target.shape for target in targets)]
    _finish(prepared, op, results, names, shapes)
    return prepared


def _finish(
    model: ir.Model,
    op: Ops,
    results: Sequence[Tensor],
    names: Sequence[str],
    shapes: Sequence[ir.Shape | None],
) -> None:
    """Make `results` the outputs, under `names` and of these shapes, and drop what they do not need."""
    graph = model.graph
    taken = {value.name for value in _values(graph)}
    graph.outputs.clear()
    for result, name, shape in zip(results, names, shapes, strict=True):
        value = result.value
        if value.is_graph_output() or not (value.name or "").startswith(op.prefix):
            value = op.Identity(result).value
        while name in taken:
            name += "_"
        taken.add(name)
        value.name, value.shape = name, shape
        graph.outputs.append(value)
    graph.sort()  # a rule may have replaced what it found
    drop_unused(graph)
    for branching in [node for node in graph.all_nodes() if node.op_type == "If"]:
        for body in subgraphs(branching):
            forget_shapes(value for node in body for value in node.outputs)


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _target(values: Mapping[str | None, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise NoGradientError(f"no value is named {name!r} in the model, so it has no gradient")
    if not is_float(values[name]):
        raise NoGradientError(
            f"{name!r} has type {values[name].dtype}; only floating-point values have gradients"
        )
    return values[name]


def _unused_prefix(values: Mapping[str | None, ir.Value]) -> str:
    prefix = _PREFIX
    while any(name is not None and name.startswith(prefix) for name in values):
        prefix = f"{prefix[:-1]}'/"
    return prefix
