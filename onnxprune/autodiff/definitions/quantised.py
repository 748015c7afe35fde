"""Ops on quantised numbers: what they compute on the real numbers that those stand for, quantised again.

onnxruntime fuses the written-out form back into the same kernels where nothing reads its inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call

_CONTRIB = "com.microsoft"


def _real(call: Call, first: int, axis: int = 1) -> Tensor:
    """The real numbers that inputs `first` to `first + 2` stand for: q, scale, zero point."""
    q, scale, zero = call.inputs[first : first + 3]
    return _dequantized(call, q, scale, zero, axis)


def _dequantized(
    call: Call, q: Tensor, scale: Tensor, zero: Tensor | None, axis: int = 1
) -> Tensor:
    y = call.op.DequantizeLinear(q, _one(call, scale), _one(call, zero), axis=axis)
    y.value.type = scale.value.type
    return y


def _quantized(call: Call, y: Tensor, first: int) -> Sequence[Tensor]:
    """Quantised by the scale and zero point that are inputs `first` and `first + 1`."""
    scale, zero = (_one(call, call.input(place)) for place in (first, first + 1))
    if zero is None:
        zero = call.op.constant(np.zeros(()), call.y.dtype)
    q = call.op.QuantizeLinear(y, scale, zero)
    q.value.type = call.y.value.type
    return [q]


def _one(call: Call, parameter: Tensor | None) -> Tensor | None:
    """A scale or zero point of one element as a scalar, which goes with any tensor."""
    if parameter is not None and parameter.rank > 1:
        raise call.error("a scale of more than one axis is not supported")
    if parameter is None or parameter.shape != (1,):
        return parameter
    return call.op.reshape(parameter, [])


def _attributes(call: Call) -> dict[str, Any]:
    return {name: attribute.value for name, attribute in call.node.attributes.items()}


@defined("QLinearConv")
def qlinear_conv(call: Call) -> Sequence[Tensor]:
    """The bias is in steps of x_scale w_scale."""
    x, w, bias = _real(call, 0), _real(call, 3, axis=0), call.input(8)
    more = []
    if bias is not None:
        steps = call.op.Mul(_one(call, call.inputs[1]), _one(call, call.inputs[4]))
        steps.value.shape = call.inputs[4].value.shape
        more.append(_dequantized(call, bias, steps, None, axis=0))
    return _quantized(call, call.op.Conv(x, w, *more, **_attributes(call)), 6)


@defined("QLinearMatMul")
def qlinear_matmul(call: Call) -> Sequence[Tensor]:
    """A scale of A may be one a row, a scale of B one a column."""
    rows, columns = (max(call.inputs[place].rank - last, 0) for place, last in ((0, 2), (3, 1)))
    y = call.op.MatMul(_real(call, 0, rows), _real(call, 3, columns))
    return _quantized(call, y, 6)


def _of_two(op_type: str) -> None:
    @defined(f"QLinear{op_type}", domain=_CONTRIB)
    def binary(call: Call) -> Sequence[Tensor]:
        y = call.op.call(op_type, _real(call, 0), _real(call, 3))[0]
        return _quantized(call, y, 6)


def _of_one(op_type: str) -> None:
    @defined(f"QLinear{op_type}", domain=_CONTRIB)
    def unary(call: Call) -> Sequence[Tensor]:
        if call.int("channels_last"):
            raise call.error("channels_last is not supported")
        attributes = _attributes(call)
        attributes.pop("channels_last", None)
        return _quantized(call, call.op.call(op_type, _real(call, 0), **attributes)[0], 3)


for _op_type in ("Add", "Mul"):
    _of_two(_op_type)
for _op_type in ("AveragePool", "GlobalAveragePool", "LeakyRelu", "Sigmoid"):
    _of_one(_op_type)


@defined("QLinearConcat", domain=_CONTRIB)
def qlinear_concat(call: Call) -> Sequence[Tensor]:
    """Output scale and zero point first, then three inputs for each part."""
    parts = [_real(call, first) for first in range(2, len(call.inputs), 3)]
    return _quantized(call, call.op.Concat(*parts, axis=call.int("axis")), 0)
