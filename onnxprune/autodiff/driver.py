"""Reverse-mode differentiation of ONNX graphs.

`gradient` appends to a copy of a model the nodes that compute a loss and its gradients. The driver
knows no op. It does what all rules share:

1. Only nodes on a path from a target to the loss are visited, last to first.
2. Where a value is used more than once, the gradients of its uses are added.
3. Where an op broadcast an input, its gradient is summed over the broadcast axes.
4. A gradient that is zero is None, never a tensor of zeros, until the end.
5. A node without a rule is an error that names the op, the node and the path from it to the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import registry
from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.control import captured_values
from onnxprune.autodiff.losses import Loss, Output
from onnxprune.autodiff.prepare import prepare
from onnxprune.autodiff.registry import Call, NoGradientError, describe

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
    forward = list(graph)
    op = Ops(graph, _unused_prefix(values))
    outputs = {value.name or "": Tensor(value, op) for value in graph.outputs}
    total, seeds = (Output(loss) if isinstance(loss, str) else loss).build(
        op, {**outputs, **{name or "": Tensor(value, op) for name, value in values.items()}}
    )
    gradients = _backward(op, forward, seeds, targets)
    results = [total] + [
        op.zeros_like(Tensor(target, op)) if found is None else found
        for target, found in zip(targets, gradients, strict=True)
    ]
    names = ["loss"] + [f"{target.name}.grad" for target in targets]
    _finish(prepared, op, results, names)
    return prepared


def _backward(
    op: Ops,
    nodes: Sequence[ir.Node],
    seeds: Iterable[tuple[Tensor, Tensor]],
    targets: Sequence[ir.Value],
) -> list[Tensor | None]:
    """The gradient at each target, given the loss's gradients at some values (its seeds)."""
    wanted = _dependents(nodes, targets)
    found: dict[ir.Value, Tensor] = {}

    def add(value: ir.Value, contribution: Tensor) -> None:
        if value in wanted:
            found[value] = found[value] + contribution if value in found else contribution

    for seeded, seed in seeds:
        add(seeded.value, seed)
    for node in reversed(nodes):
        inputs = [*node.inputs, *captured_values(node)]
        if not any(output in found for output in node.outputs):
            continue
        if not any(value in wanted for value in inputs) or registry.is_constant_op(node):
            continue
        entry = registry.find(node)
        if entry is None:
            raise _no_rule(node, nodes, [tensor.value for tensor, _ in seeds])
        call = Call(
            node,
            op,
            tuple(None if value is None else Tensor(value, op) for value in inputs),
            tuple(Tensor(value, op) for value in node.outputs),
            tuple(value in wanted for value in inputs),
        )
        contributions = entry.rule(call, *(found.get(output) for output in node.outputs))
        if len(contributions) != len(inputs):
            raise call.error(f"its rule gave {len(contributions)} gradients, not {len(inputs)}")
        for value, contribution in zip(inputs, contributions, strict=True):
            if value is None or contribution is None or value not in wanted:
                continue
            if entry.broadcast:
                contribution = op.unbroadcast(contribution, call.y, Tensor(value, op))
            add(value, contribution)
        for output in node.outputs:  # its gradient is complete and, unless asked for, used up
            if output not in targets:
                found.pop(output, None)
    return [found.get(target) for target in targets]


def _dependents(nodes: Sequence[ir.Node], targets: Sequence[ir.Value]) -> set[ir.Value]:
    """The floating-point values that depend differentiably on a target, the targets included."""
    found = set(targets)
    for node in nodes:
        if registry.is_constant_op(node):
            continue
        if any(value in found for value in (*node.inputs, *captured_values(node))):
            found.update(value for value in node.outputs if _carries(node, value, found))
    return found


def _carries(node: ir.Node, output: ir.Value, found: set[ir.Value]) -> bool:
    """Whether an output has a gradient: floating-point numbers do, and quantised ones."""
    if _is_float(output) or node.op_type == "QuantizeLinear":
        return True
    return any(value in found and value.dtype == output.dtype for value in node.inputs if value)


def _no_rule(
    node: ir.Node, nodes: Sequence[ir.Node], seeded: Sequence[ir.Value]
) -> NoGradientError:
    after: dict[ir.Value, ir.Node | None] = dict.fromkeys(seeded)
    for later in reversed(nodes):
        if later is node or registry.is_constant_op(later):
            continue
        if any(output in after for output in later.outputs):
            after.update((v, later) for v in later.inputs if v is not None and v not in after)
    path = [node.op_type]
    step = next((after[output] for output in node.outputs if output in after), None)
    while step is not None:
        path.append(step.op_type)
        step = next((after[output] for output in step.outputs if output in after), None)
    shown = path if len(path) <= 8 else [*path[:4], "...", *path[-3:]]
    return NoGradientError(
        f"no gradient rule for {describe(node)}, on the way {' -> '.join(shown)} -> loss; "
        f"register one with onnxprune.autodiff.vjp({node.op_type!r}, domain={node.domain!r})"
    )


def _finish(model: ir.Model, op: Ops, results: Sequence[Tensor], names: Sequence[str]) -> None:
    """Make `results` the outputs, under `names`, and drop what they do not need."""
    graph = model.graph
    taken = {value.name for value in _values(graph)}
    graph.outputs.clear()
    for result, name in zip(results, names, strict=True):
        output = op.Identity(result)
        while name in taken:
            name += "_"
        taken.add(name)
        output.value.name = name
        graph.outputs.append(output.value)
    _drop_unused(graph)


def _drop_unused(graph: ir.Graph) -> None:
    for node in reversed(graph):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _target(values: Mapping[str | None, ir.Value], name: str) -> ir.Value:
    if name not in values:
        raise NoGradientError(f"no value is named {name!r} in the model, so it has no gradient")
    if not _is_float(values[name]):
        raise NoGradientError(
            f"{name!r} has type {values[name].dtype}; only floating-point values have gradients"
        )
    return values[name]


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point()


def _unused_prefix(values: Mapping[str | None, ir.Value]) -> str:
    prefix = _PREFIX
    while any(name is not None and name.startswith(prefix) for name in values):
        prefix = f"{prefix[:-1]}'/"
    return prefix
