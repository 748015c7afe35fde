"""Sizes that the first nodes behind the inputs ask of an open axis: those that their constants have, or point to."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from onnxprune.graph import constant
from onnxprune.runtime.open_axes import graph_inputs

__all__ = ["asked_sizes"]

MOST_DOWNSTREAM = 8
"""Values looked at downstream of an input."""
LARGEST_READ = 1 << 16
"""Elements of a list of indices that is looked through."""
BY_CHANNEL = frozenset(
    [
        "Add",
        "Sub",
        "Mul",
        "Div",
        "PRelu",
        "BatchNormalization",
        "InstanceNormalization",
        "LayerNormalization",
    ]
)


def asked_sizes(model: ir.Model) -> tuple[int, ...]:
    """The sizes, each once, in the order in which they are met."""
    found: dict[int, None] = {}
    for start in graph_inputs(model):
        queue = [start]
        for k in range(MOST_DOWNSTREAM):
            for node, index in queue[k].uses() if k < len(queue) else ():
                sizes = list(_asked(node, index))
                found.update(dict.fromkeys(sizes))
                if not sizes or node.op_type in BY_CHANNEL:
                    queue += node.outputs
    return tuple(found)


def _asked(node: ir.Node, index: int) -> Iterator[int]:
    """What a node asks of the axes of one of its inputs."""
    constants = [None if value is None else constant(value) for value in node.inputs]
    other = constants[1] if len(constants) > 1 and index == 0 else None
    if node.op_type in BY_CHANNEL:
        for each in constants:
            yield from (int(n) for n in (() if each is None else each.shape.numpy()) if n > 1)
    elif other is None or other.size == 0:
        return
    elif node.op_type in ("Conv", "MatMul", "Gemm"):
        shape = other.shape.numpy()
        turned = node.attributes.get_int("transB", 0) == 1
        groups = node.attributes.get_int("group", 1)
        yield int(shape[1] * groups if node.op_type == "Conv" or turned else shape[-2:][0])
    elif node.op_type == "Gather" and other.size <= LARGEST_READ:
        yield int(other.numpy().max()) + 1
    elif node.op_type == "Split":
        yield int(other.numpy().sum())
