"""The backward pass over the nodes of one graph: the main one, or the branch of an If.

It knows no op. It does what all rules share:

1. Only nodes on a path from a target to the loss are visited, last to first.
2. Where a value is used more than once, the gradients of its uses are added.
3. Where an op broadcast an input, its gradient is summed over the broadcast axes.
4. A gradient that is zero is None, never a tensor of zeros, until the end.
5. A node without a rule is an error that names the op, the node and the path from it to the loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from onnxprune.autodiff import registry
from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, NoGradientError, describe
from onnxprune.graph.flow import captured_values

__all__ = ["backward", "drop_unused", "is_float"]


def backward(
    op: Ops,
    nodes: Sequence[ir.Node],
    seeds: Iterable[tuple[Tensor, Tensor]],
    targets: Sequence[ir.Value],
) -> list[Tensor | None]:
    """The gradient at each target, given the loss's gradients at some values (its seeds).

    Args:
        op: Writes the backward nodes, behind `nodes`.
        nodes: Of the forward pass, in order.
        seeds: Values that `nodes` make, each with the gradient of the loss at it.
        targets: Values made by `nodes` or read by them.

    Returns:
        One gradient a target, None where it is zero.

    Raises:
        NoGradientError: An op on the way has no rule, or not for this form.
    """
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
    """Whether an output has a gradient: real numbers do, what stands for them, and what may hold some."""
    entry = registry.find(node)
    if is_float(output) or output.dtype is None or (entry is not None and entry.integer):
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


def drop_unused(graph: ir.Graph) -> None:
    """Removes what no output of the graph needs, in place."""
    for node in reversed(graph):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def is_float(value: ir.Value) -> bool:
    """Whether a value is known to hold floating-point numbers."""
    return value.dtype is not None and value.dtype.is_floating_point()
