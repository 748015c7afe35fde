"""What a model costs: parameters, bytes, multiply-accumulates (MACs).

Only contractions cost MACs, everything else is counted as free, as is usual in the literature. A
contraction costs one MAC for every element of its output and every term summed into it; a rule says
how many that is from the shapes of the node's inputs and output:

    Conv            |y| * |w| / M           each output element sums a kernel of one group
    ConvTranspose   |x| * |w| / C           each input element is spread through one kernel
    MatMul, Gemm    |y| * K                 K the contracted length
    LSTM, GRU, RNN  T * N * (|W| + |R|)     every step multiplies by both matrices
    Einsum          product of all indices

with |.| the number of elements. Shapes are those of a real run, so symbolic sizes need no guess.
"""

from __future__ import annotations

import math
import string
from collections.abc import Callable, Mapping

import onnx_ir as ir

from onnxprune.graph.weights import constant, weights

__all__ = [
    "LEARNED",
    "Shape",
    "Shapes",
    "is_contraction",
    "macs",
    "macs_by_node",
    "nbytes",
    "node_macs",
    "params",
]

Shape = tuple[int, ...]
Shapes = Mapping[ir.Value, Shape]
_Rule = Callable[[ir.Node, "list[Shape | None]", Shape], int | None]

# Types that carry learned numbers; int32 is left out since it holds biases of quantised models,
# int64 and bool because they hold shapes, indices and masks.
LEARNED = {
    dtype
    for dtype in ir.DataType
    if dtype.name.startswith(("FLOAT", "BFLOAT", "DOUBLE", "INT8", "UINT8", "INT4", "UINT4"))
}


def params(model: ir.Model) -> int:
    """Number of weights: elements of all constants of a floating-point or small integer type."""
    return sum(math.prod(w.shape) for w in weights(model) if w.dtype in LEARNED)


def nbytes(model: ir.Model) -> int:
    """Bytes of all constants, of any type; one made by ConstantOfShape counts as if stored."""
    return sum(weight.nbytes for weight in weights(model))


def macs(model: ir.Model, shapes: Shapes) -> int:
    """MACs of one run with inputs of the given shapes.

    Args:
        model: The model; calls of local functions count nothing, so inline them first.
        shapes: Shape of each value in that run; constants need not be in it.
    """
    return sum(macs_by_node(model, shapes).values())


def macs_by_node(model: ir.Model, shapes: Shapes) -> dict[ir.Node, int]:
    """MACs of every contraction whose shapes are known, in graph order.

    Args:
        model: The model. Nodes in the bodies of If, Loop and Scan are counted once, where their
            shapes are known.
        shapes: Shape of each value in one run; constants need not be in it.
    """
    counted: dict[ir.Node, int] = {}
    for node in model.graph.all_nodes():
        count = node_macs(node, shapes)
        if count is not None:
            counted[node] = count
    return counted


def node_macs(node: ir.Node, shapes: Shapes) -> int | None:
    """MACs of one node; None if it is no contraction, or its shapes are not known."""
    rule = _RULES.get((node.domain, node.op_type))
    output = _shape(node.outputs[0], shapes) if rule is not None else None
    if rule is None or output is None:
        return None
    inputs = [None if value is None else _shape(value, shapes) for value in node.inputs]
    return rule(node, inputs, output)


def is_contraction(op: str) -> bool:
    """Whether operators of a type, of any domain, cost MACs."""
    return any(op == known for _, known in _RULES)


def _shape(value: ir.Value, shapes: Shapes) -> Shape | None:
    """Shape in the run, else that of the constant, else the declared one if it has no symbols."""
    if value in shapes:
        return tuple(shapes[value])
    stored = constant(value)
    if stored is not None:
        return tuple(stored.shape.numpy())
    if value.shape is not None and value.shape.is_static():
        return tuple(value.shape.numpy())
    return None


def _conv(weight: int) -> _Rule:
    """Convolution whose kernel, (M, C / group, ...), is the given input."""

    def rule(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
        kernel = inputs[weight]
        return None if kernel is None else math.prod(output) * math.prod(kernel[1:])

    return rule


def _conv_transpose(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    data, kernel = inputs[0], inputs[1]
    if data is None or kernel is None:
        return None
    return math.prod(data) * math.prod(kernel[1:])


def _matmul(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    data = inputs[0]
    return None if not data else math.prod(output) * data[-1]


def _gemm(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    data = inputs[0]
    if data is None:
        return None
    transposed = node.attributes.get_int("transA", 0)
    return math.prod(output) * data[-2 if transposed else -1]


def _recurrent(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    data, weight, recurrence = inputs[:3]
    if data is None or weight is None or recurrence is None:
        return None
    return data[0] * data[1] * (math.prod(weight) + math.prod(recurrence))


def _einsum(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    """Cost of the direct evaluation: every combination of all indices, one MAC each."""
    equation = node.attributes.get_string("equation", "").replace(" ", "")
    sizes: dict[str, int] = {}
    for term, shape in zip(equation.split("->")[0].split(","), inputs, strict=True):
        if shape is None:
            return None
        before, _, after = term.partition("...")
        sizes.update(zip(before, shape, strict=False))
        sizes.update(zip(reversed(after), reversed(shape), strict=False))
        rest = shape[len(before) : len(shape) - len(after)] if "..." in term else ()
        # The axes of an ellipsis broadcast from the right; digits cannot be indices of an equation.
        for position, size in zip(string.digits, reversed(rest), strict=False):
            sizes[position] = max(size, sizes.get(position, 1))
    return math.prod(sizes.values()) if len(inputs) > 1 else 0


def _attention(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    """Attention of com.microsoft: the projection to Q, K and V, then Q K' and its product with V."""
    data, weight = inputs[:2]
    if data is None or weight is None or len(data) != 3:
        return None
    batch, length, hidden = data
    projection = batch * length * hidden * weight[-1]
    return projection + 2 * batch * length * length * output[-1]


def _multi_head(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    """MultiHeadAttention of com.microsoft with (batch, length, heads * size) inputs."""
    query, key = inputs[0], inputs[1] if len(inputs) > 1 else None
    if query is None or key is None or len(query) != 3 or len(key) != 3:
        return None
    return query[0] * query[1] * key[1] * (query[2] + output[-1])


def _onnx_attention(node: ir.Node, inputs: list[Shape | None], output: Shape) -> int | None:
    """Attention of ONNX: Q K' and its product with V; 4-D inputs are (batch, heads, length, size)."""
    query, key = inputs[0], inputs[1]
    if query is None or key is None:
        return None
    return math.prod(query) * key[-2] + math.prod(output) * key[-2]


_MS = "com.microsoft"
_RULES: dict[tuple[str, str], _Rule] = {
    ("", "Conv"): _conv(1),
    ("", "ConvInteger"): _conv(1),
    ("", "QLinearConv"): _conv(3),
    (_MS, "FusedConv"): _conv(1),
    (_MS, "NhwcFusedConv"): _conv(1),
    (_MS, "QLinearConv"): _conv(3),
    ("", "ConvTranspose"): _conv_transpose,
    ("", "MatMul"): _matmul,
    ("", "MatMulInteger"): _matmul,
    ("", "QLinearMatMul"): _matmul,
    (_MS, "MatMulIntegerToFloat"): _matmul,
    (_MS, "DynamicQuantizeMatMul"): _matmul,
    (_MS, "MatMulNBits"): _matmul,
    (_MS, "FusedMatMul"): _gemm,
    ("", "Gemm"): _gemm,
    (_MS, "FusedGemm"): _gemm,
    (_MS, "QGemm"): _gemm,
    ("", "LSTM"): _recurrent,
    ("", "GRU"): _recurrent,
    ("", "RNN"): _recurrent,
    (_MS, "DynamicQuantizeLSTM"): _recurrent,
    ("", "Einsum"): _einsum,
    ("", "Attention"): _onnx_attention,
    (_MS, "Attention"): _attention,
    (_MS, "MultiHeadAttention"): _multi_head,
}
