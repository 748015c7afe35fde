"""Quantised ops: scales and zero points are one for the tensor, or one an index of an axis."""

from __future__ import annotations

from onnxprune.dims.axis import size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.rules.contraction import product
from onnxprune.dims.rules.layout import join

# X, its scale and zero point; W, one scale and zero point or one an output channel; the output's; bias.
_CONV = "n {x}, *, *, (g o) i _*, (g o)?, (g o)?, *, *, (g o) -> n {y}"
_CHANNELS_FIRST = _CONV.format(x="(g i) _*", y="(g o) _*")
_CHANNELS_LAST = _CONV.format(x="_* (g i)", y="_* (g o)")
_QLINEAR_CONV = f"channels_last: {_CHANNELS_LAST} | {_CHANNELS_FIRST}; group/1=g"
# Scales and packed zero points of K in blocks.
_BLOCKS = "s* _, n _ _, {}, {}, *, n -> s* n"
specs(
    {
        "QLinearConv": _QLINEAR_CONV,
        "ConvInteger": "n (g i) _*, (g o) i _*, *, (g o)? -> n (g o) _*; group/1=g",
        "QLinearMatMul": "s* m k, *, *, s* k n, n?, n?, *, * -> s* m n",
        "MatMulInteger": "s* m k, s* k n, *, n? -> s* m n",
        "DynamicQuantizeLinear": "s* -> s*, *, *",
    }
)
specs(
    {
        "QLinearConv": _QLINEAR_CONV,
        "QLinearAdd QLinearMul": "s*, *, *, s* -> s*",
        "QLinearWhere": "s*, s*, *, *, s* -> s*",
        "QGemm": product("{a}, *, *, {b}, n?, n?, m? n? -> {m} {n}"),
        "MatMulIntegerToFloat": "s* m k, s* k n, *, n?, *, n?, n -> s* m n",
        "DynamicQuantizeMatMul": "s* m k, s* k n, n?, n?, n -> s* m n",
        "MatMulNBits": f"{_BLOCKS.format('n _', 'n _')} | {_BLOCKS.format('(n s!)', '(n z!)')}; N=n",
    },
    domain=CONTRIB,
)


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
            node.meet(scale, x)
            node.freeze(scale[k], "it is quantised in blocks")
            node.freeze(x[k], "it is quantised in blocks")
    node.set_out(x)


@axes("QLinearConcat", domain=CONTRIB)
def concat(node: Context) -> None:
    """The output's scale and zero point, then each tensor with its own."""
    join(node, range(2, node.input_count, 3), node.attr("axis"))
