"""Control flow whose course is known, written out.

1. An If whose condition is the same whatever the inputs becomes the branch that is taken.
2. A Scan over sequences of known length, and a Loop of a known number of trips (see `trips`), become as many copies of
   their body.

An If whose condition only the data decides stays one; of lengths that only the data decides there is no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.rewrite import rewrite
from onnxprune.autodiff.trips import constant_array, trips
from onnxprune.graph.flow import captured_values, subgraphs

__all__ = ["copy_body", "unroll"]

_MOST_STEPS = 512


def unroll(model: ir.Model, prefix: str) -> bool:
    """Write out, in place, the control flow of the main graph whose course is known.

    Args:
        model: Its values have types, shapes, and where they are settled, constants.
        prefix: Start of the names of new values, which no other name starts with.

    Returns:
        Whether there was any.
    """
    opsets = model.graph.opset_imports
    return rewrite(
        model,
        prefix,
        lambda node: _known(node, opsets),
        lambda op, node: _WAYS[node.op_type](op, node),
    )


def _known(node: ir.Node, opsets: Mapping[str, int]) -> bool:
    if any(captured_values(inner) for body in subgraphs(node) for inner in body):
        return False  # what an inner body reads of this one would have to be renamed there
    if node.op_type == "If":
        return constant_array(node.inputs[0]) is not None
    if node.op_type == "Scan":
        return 0 < _length(node) <= _MOST_STEPS
    return node.op_type == "Loop" and trips(node, opsets, _MOST_STEPS) > 0


def copy_body(op: Ops, body: ir.Graph, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Append a body's nodes, reading `inputs`; its outputs."""
    values: dict[ir.Value, ir.Value] = {
        formal: actual.value for formal, actual in zip(body.inputs, inputs, strict=True)
    }
    for name, value in body.initializers.items():
        assert value.const_value is not None
        values[value] = op.initializer(name, value.const_value).value
    for node in body:
        copy = ir.Node(
            node.domain,
            node.op_type,
            [None if v is None else values.get(v, v) for v in node.inputs],
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=op.unique_name(node.op_type),
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name = op.unique_name(node.op_type) if old.name else ""
            new.type = old.type
            values[old] = new
        op.graph.append(copy)
    return [Tensor(values.get(value, value), op) for value in body.outputs]


def _input(op: Ops, node: ir.Node, index: int) -> Tensor:
    value = node.inputs[index]
    assert value is not None
    return Tensor(value, op)


def _if(op: Ops, node: ir.Node) -> list[Tensor]:
    condition = constant_array(node.inputs[0])
    assert condition is not None
    name = "then_branch" if condition.ravel()[0] else "else_branch"
    return copy_body(op, node.attributes[name].as_graph(), [])


def _length(node: ir.Node) -> int:
    """Steps of a Scan, 0 if unknown."""
    count = node.attributes["num_scan_inputs"].as_int()
    axes = node.attributes.get("scan_input_axes")
    sequence = node.inputs[len(node.inputs) - count]
    axis = 0 if axes is None else axes.as_ints()[0]
    if sequence is None or sequence.shape is None:
        return 0
    size = sequence.shape[axis]
    return size if isinstance(size, int) else 0


def _scan(op: Ops, node: ir.Node) -> list[Tensor]:
    body = node.attributes["body"].as_graph()
    count = node.attributes["num_scan_inputs"].as_int()
    held = len(node.inputs) - count
    states = [_input(op, node, i) for i in range(held)]
    sequences = [_input(op, node, held + i) for i in range(count)]
    results = len(node.outputs) - held

    def ints(name: str, size: int) -> list[int]:
        attribute = node.attributes.get(name)
        return [0] * size if attribute is None else list(attribute.as_ints())

    steps = _length(node)
    stacks: list[list[Tensor]] = [[] for _ in range(results)]
    for t in range(steps):
        slices = [
            op.Gather(x, op.constant(np.array(steps - 1 - t if back else t)), axis=axis)
            for x, axis, back in zip(
                sequences,
                ints("scan_input_axes", count),
                ints("scan_input_directions", count),
                strict=True,
            )
        ]
        made = copy_body(op, body, [*states, *slices])
        states = made[:held]
        for stack, result in zip(stacks, made[held:], strict=True):
            stack.append(result)
    return states + [
        op.Concat(*(op.Unsqueeze(x, [axis]) for x in (reversed(s) if back else s)), axis=axis)
        for s, axis, back in zip(
            stacks,
            ints("scan_output_axes", results),
            ints("scan_output_directions", results),
            strict=True,
        )
    ]


def _loop(op: Ops, node: ir.Node) -> list[Tensor]:
    body = node.attributes["body"].as_graph()
    states = [_input(op, node, i) for i in range(2, len(node.inputs))]
    stacks: list[list[Tensor]] = [[] for _ in range(len(node.outputs) - len(states))]
    going_on = op.constant(np.array(True))
    for t in range(trips(node, op.graph.opset_imports, _MOST_STEPS)):
        made = copy_body(op, body, [op.constant(np.array(t)), going_on, *states])
        states = made[1 : 1 + len(states)]
        for stack, result in zip(stacks, made[1 + len(states) :], strict=True):
            stack.append(result)
    return states + [op.Concat(*(op.Unsqueeze(x, [0]) for x in s), axis=0) for s in stacks]


_WAYS = {"If": _if, "Scan": _scan, "Loop": _loop}
