"""Quantised ops: scales and zero points are one for the tensor, or one an index of an axis."""

from __future__ import annotations

from onnxprune.dims.axis import Axis, Dim, Product, Sum, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.rules.contraction import product
from onnxprune.dims.spec import Spec

_CONV = "n {x}, *, *, (g o) i _*, (g o)?, (g o)?, *, *, (g o) -> n {y}; g=group/1; group=g"
_CHANNELS_FIRST = Spec.parse(_CONV.format(x="(g i) _*", y="(g o) _*"))
_CHANNELS_LAST = Spec.parse(_CONV.format(x="_* (g i)", y="_* (g o)"))
specs(
    {
        "ConvInteger": "n (g i) _*, (g o) i _*, *, (g o)? -> n (g o) _*; g=group/1; group=g",
        "QLinearMatMul": "s?* m k, *, *, s?* k n, n?, n?, *, * -> s?* m n",
        "MatMulInteger": "s?* m k, s?* k n, *, n? -> s?* m n",
    }
)
specs(
    {
        "MatMulIntegerToFloat": "s?* m k, s?* k n, *, n?, *, n?, n -> s?* m n",
        "DynamicQuantizeMatMul": "s?* m k, s?* k n, n?, n?, n -> s?* m n",
    },
    domain=CONTRIB,
)


@axes("QLinearConv")
@axes("QLinearConv", domain=CONTRIB)
def qlinear_conv(node: Context) -> None:
    """X, its scale and zero point; W, one scale and zero point or one an output channel; the output's; bias."""
    (_CHANNELS_LAST if node.attr("channels_last", 0) else _CHANNELS_FIRST).apply(node)


@axes("QuantizeLinear", "DequantizeLinear")
@axes("QuantizeLinear", "DequantizeLinear", domain=CONTRIB)
def linear(node: Context) -> None:
    """A scale of one axis is along `axis`; blocked scales freeze the blocked axis."""
    x = node.x(0)
    k = node.attr("axis", 1)
    for i in (1, 2):
        scale = node.axes(i) or ()
        if len(scale) == 1 and size(scale[0]) > 1:
            node.unify(scale[0], x[k])
        elif len(scale) > 1:
            for j, (axis, other) in enumerate(zip(scale, x, strict=True)):
                if j == k % len(x):
                    node.freeze(axis, "it is quantised in blocks")
                    node.freeze(other, "it is quantised in blocks")
                else:
                    node.unify(axis, other)
    node.set_out(x)


@axes("QGemm", domain=CONTRIB)
def qgemm(node: Context) -> None:
    """A and B, each with its scale and zero point (of B: one, or one a column), then the bias."""
    columns = product(node, 0, 3)[1]
    for i in (4, 5, 6):
        for axis in (node.axes(i) or ())[-1:]:
            if size(axis) == size(columns):
                node.unify(axis, columns)


@axes("MatMulNBits", domain=CONTRIB)
def matmul_nbits(node: Context) -> None:
    """Weights `n blocks bytes`, scales and packed zero points `n blocks` or `(n blocks)`; blocks, and so K, stay."""
    x, w, out = node.x(0), node.x(1), node.out()
    node.unify(w[0], out[-1])
    for axis in (x[-1], *w[1:]):
        node.freeze(axis, "it is quantised in blocks")
    for i in (2, 3, 5):
        for k, axis in enumerate(node.axes(i) or ()):
            if k:
                node.freeze(axis, "it is quantised in blocks")
            else:
                blocks = Dim(size(axis) // size(w[0]), "it is quantised in blocks")
                node.unify(axis, Product((w[0], blocks)))
    for axis, other in zip(x[:-1], out[:-1], strict=True):
        node.unify(axis, other)
    node.attr_follows("N", w[0])


@axes("DynamicQuantizeLinear")
def dynamic(node: Context) -> None:
    """One scale for all: zeros are always in its range."""
    node.set_out(node.x(0))


@axes("QLinearAveragePool", "QLinearGlobalAveragePool", domain=CONTRIB)
def pool(node: Context) -> None:
    """As the float op, with the channels last on request."""
    x, out = node.x(0), node.out()
    channels = len(x) - 1 if node.attr("channels_last", 0) else 1
    for k, (axis, other) in enumerate(zip(x, out, strict=True)):
        if k in (0, channels):
            node.unify(axis, other)
        else:
            node.freeze(axis)
            node.freeze(other)


@axes("QLinearAdd", "QLinearMul", domain=CONTRIB)
def binary(node: Context) -> None:
    """A, its scale and zero point, then B."""
    node.broadcast([0, 3])


@axes("QLinearLeakyRelu", "QLinearSigmoid", domain=CONTRIB)
def unary(node: Context) -> None:
    """As the float op."""
    node.set_out(node.x(0))


@axes("QLinearConcat", domain=CONTRIB)
def concat(node: Context) -> None:
    """The output's scale and zero point, then each tensor with its own."""
    parts, out = [node.x(i) for i in range(2, node.input_count, 3)], node.out()
    k = node.attr("axis") % len(out)
    for part in parts:
        for j, axis in enumerate(part):
            if j != k:
                node.unify(axis, out[j])
    joined: list[Axis] = [part[k] for part in parts]
    node.unify(out[k], Sum(tuple(joined)))
