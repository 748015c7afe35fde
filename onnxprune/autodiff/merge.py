"""Nodes merged into one where the backward pass then has less to keep and to do.

    BatchNormalization behind Conv    y = (W * x - m) f + b = (W f) * x + (b - m) f,  f = s / sqrt(var + eps)
    x/2 (1 + erf(x / sqrt 2))         Gelu(x)
    x[0], x[1], ... x[n-1]            Split(x)

Of the first, the gradients of W, s, b, m and var all follow from that of the small W f; what the
convolution gives alone is then neither kept nor gone over again. Of the second, nothing is kept
but x. Of the third, the gradients of the rows are put together instead of each being padded with zeros, and those
added. A value is merged away only if it has no reader but the next of these nodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor

__all__ = ["merge"]


def merge(graph: ir.Graph, prefix: str, kept: Collection[ir.Value]) -> None:
    """Merge what can be merged, in place.

    Args:
        graph: Its values have types and shapes; the new ones get theirs.
        prefix: Start of the names of new values, which no other name starts with.
        kept: Values that must stay.
    """
    op = Ops(graph, prefix)
    for node in list(graph):
        if node.graph is not graph:
            continue
        if node.op_type == "BatchNormalization":
            _into_convolution(op, node, kept)
        elif node.op_type == "Erf":
            _gelu(op, node, kept)
        elif node.op_type == "Gather":
            _split(op, node, kept)


def _into_convolution(op: Ops, norm: ir.Node, kept: Collection[ir.Value]) -> None:
    conv = norm.inputs[0].producer() if norm.inputs[0] is not None else None
    if (
        conv is None
        or conv.op_type != "Conv"
        or conv.domain != norm.domain
        or norm.attributes.get_int("training_mode", default=False)
        or any(value.uses() or value.is_graph_output() for value in norm.outputs[1:])
        or not _inner(conv.outputs[0], kept)
        or norm.outputs[0] in kept
        or len({value.dtype for value in norm.inputs if value is not None}) > 1
    ):
        return
    graph, end = op.graph, len(op.graph)
    weights, old = Tensor(_given(conv, 1), op), conv.inputs[2] if len(conv.inputs) > 2 else None
    scale, bias, mean, variance = (Tensor(_given(norm, index), op) for index in range(1, 5))
    factor = scale / op.Sqrt(variance + norm.attributes.get_float("epsilon", 1e-5))
    column = op.reshape(factor, [-1] + [1] * (weights.rank - 1))
    shift = -mean if old is None else Tensor(old, op) - mean
    column.value.shape = ir.Shape([scale.shape[0], *[1] * (weights.rank - 1)])
    merged = op.call("Conv", Tensor(_given(conv, 0), op), weights * column, shift * factor + bias)[
        0
    ]
    result = merged.value.producer()
    assert result is not None
    result.attributes.update(conv.attributes)
    written = list(graph)[end:]
    for node in written:
        for value in node.outputs:
            value.shape = value.shape or scale.value.shape
    _given(result, 1).shape = weights.value.shape
    _replace(graph, norm, merged.value, written)


def _gelu(op: Ops, erf: ir.Node, kept: Collection[ir.Value]) -> None:
    scaled = erf.inputs[0].producer() if erf.inputs[0] is not None else None
    if scaled is None or erf.outputs[0].dtype != ir.DataType.FLOAT:
        return
    x = _times(scaled, math.sqrt(0.5))
    plus = _reader(erf.outputs[0], kept)
    if x is None or plus is None or plus.op_type != "Add" or _other(plus, erf.outputs[0]) != 1.0:
        return
    factors: list[ir.Value | float | None] = [x, 0.5]
    end, node = plus.outputs[0], _reader(plus.outputs[0], kept)
    while node is not None and node.op_type == "Mul" and factors:
        factor = _other(node, end)
        if isinstance(factor, ir.Value) and factor not in factors:  # x / 2 may be one
            half = factor.producer()
            if len(factors) < 2 or half is None or _times(half, 0.5) is not x:
                return
            factors.clear()
        elif factor in factors:
            factors.remove(factor)
        else:
            return
        end, last = node.outputs[0], node
        node = _reader(end, kept) if factors else None
    if factors or end in kept:
        return
    # ONNX has the op from opset 20 on; onnxruntime's is the same.
    merged = op.call("Gelu", Tensor(x, op), domain="com.microsoft")[0]
    op.graph.opset_imports.setdefault("com.microsoft", 1)
    _replace(op.graph, last, merged.value, [op.graph[-1]])


def _split(op: Ops, first: ir.Node, kept: Collection[ir.Value]) -> None:
    x, axis = _given(first, 0), first.attributes.get_int("axis", 0)
    sizes = [] if x.shape is None or x.dtype != ir.DataType.FLOAT else [*x.shape]
    size = sizes[axis] if sizes else None
    if not isinstance(size, int) or size < 2:
        return
    rows: dict[int, ir.Node] = {}
    for node in (first, *(use.node for use in x.uses())):
        reads = node.op_type == "Gather" and node.inputs[0] is x and node.graph is op.graph
        row = _row(node) if reads and node.attributes.get_int("axis", 0) == axis else None
        if row is not None and node.outputs[0] not in kept:
            rows.setdefault(row % size, node)
    if len(rows) < size or first not in rows.values():
        return
    parts = op.call("Split", Tensor(x, op), [1] * size, outputs=size, axis=axis)
    written = [op.graph[-1]]
    sizes[axis] = 1
    for row, node in sorted(rows.items(), key=lambda item: item[1] is not first):
        parts[row].value.shape = ir.Shape(sizes)
        squeezed = op.Squeeze(parts[row], [axis])
        _replace(op.graph, node, squeezed.value, [*written, op.graph[-1]])
        written = []


def _row(node: ir.Node) -> int | None:
    """The row that a Gather reads, if it is a single one."""
    index = ir.convenience.get_const_tensor(_given(node, 1))
    return int(index.numpy()) if index is not None and index.numpy().ndim == 0 else None


def _replace(graph: ir.Graph, old: ir.Node, new: ir.Value, written: list[ir.Node]) -> None:
    """Put the `written` nodes, which make `new`, where `old` stood, under the name that it gave."""
    value = old.outputs[0]
    new.type, new.shape = value.type, value.shape
    for node in written:
        graph.remove(node)
        graph.insert_before(old, node)
    ir.convenience.replace_all_uses_with(value, new, replace_graph_outputs=True)
    new.name, value.name = value.name, None
    unused = [old]
    while unused:
        node = unused.pop()
        if node.graph is graph and not any(v.uses() or v.is_graph_output() for v in node.outputs):
            before = [v.producer() for v in node.inputs if v is not None]
            graph.remove(node, safe=True)
            unused += [each for each in before if each is not None]


def _given(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


def _inner(value: ir.Value, kept: Collection[ir.Value]) -> bool:
    """Whether a value has one reader and is not asked for."""
    return len(value.uses()) == 1 and not value.is_graph_output() and value not in kept


def _reader(value: ir.Value, kept: Collection[ir.Value]) -> ir.Node | None:
    """The only node that reads a value that may go."""
    return next(iter(value.uses())).node if _inner(value, kept) else None


def _other(node: ir.Node, value: ir.Value) -> ir.Value | float | None:
    """The other operand: its number if it is one, to float32's digits."""
    other = next((v for v in node.inputs if v is not value), None)
    number = None if other is None else _number(other)
    return other if number is None else number


def _times(node: ir.Node, factor: float) -> ir.Value | None:
    """The x of x times `factor`, written as a product or a quotient."""
    if node.op_type not in {"Mul", "Div"} or len(node.inputs) != 2:
        return None
    for index in (0, 1) if node.op_type == "Mul" else (1,):
        value = node.inputs[index]
        number = None if value is None else _number(value)
        if number and math.isclose(
            number if node.op_type == "Mul" else 1 / number, factor, rel_tol=1e-6
        ):
            return node.inputs[1 - index]
    return None


def _number(value: ir.Value) -> float | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None or tensor.size != 1:
        return None
    return float(np.asarray(tensor.numpy()).reshape(()))
