"""Quantisation, straight through (Bengio, Leonard and Courville 2013, arXiv:1308.3432).

Rounding counts as the identity and saturation stops the gradient. The gradient at an integer tensor
q is that of the real number it stands for, in units of its own steps: with q = x / s + z,

    dx = dq / s where q did not saturate        ds = - sum dq x / s^2     (QuantizeLinear)
    dq = dy s                                   ds = sum dy (q - z)       (DequantizeLinear)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, no_gradient, vjp

no_gradient("DynamicQuantizeLinear")


def _spread(call: Call, parameter: Tensor) -> Tensor:
    """A scale or zero point, to be broadcast over the tensor that it belongs to."""
    return _like(call, parameter, parameter)


def _like(call: Call, values: Tensor, parameter: Tensor) -> Tensor:
    if call.int("block_size"):
        raise call.error("blocked quantisation is not supported")
    if parameter.rank == 0 or parameter.shape == (1,) or call.x.rank <= 1:
        return values
    axis = call.int("axis", 1) % call.x.rank
    return call.op.reshape(values, [-1 if a == axis else 1 for a in range(call.x.rank)])


def _to_scale(call: Call, gradient: Tensor) -> Tensor:
    """The sum over all that shares a scale."""
    scale: Tensor = call.inputs[1]
    axis = call.int("axis", 1) % max(call.x.rank, 1)
    single = scale.rank == 0 or scale.shape == (1,)
    axes = [a for a in range(call.x.rank) if single or a != axis]
    return call.op.reshape_like(call.op.sum(gradient, axes), scale)


@vjp("QuantizeLinear")
def quantize_linear(call: Call, dq: Tensor) -> Gradients:
    """See the module's text."""
    op, (x, scale) = call.op, call.inputs[:2]
    limits = np.iinfo(call.y.dtype.numpy())
    q = op.cast(call.y, x.dtype)
    inside = op.And(q > float(limits.min), q < float(limits.max))
    s = op.cast(_spread(call, scale), x.dtype)
    dx = op.where(inside, dq / s, 0.0)
    ds = op.cast(_to_scale(call, -(dx * x / s)), scale.dtype) if call.wanted[1] else None
    return (dx, ds, None)[: len(call.inputs)]


@vjp("DequantizeLinear")
def dequantize_linear(call: Call, dy: Tensor) -> Gradients:
    """See the module's text."""
    op, (q, scale) = call.op, call.inputs[:2]
    steps = op.Cast(q, to=int(ir.DataType.FLOAT))
    zero = call.input(2)
    if zero is not None:
        steps = steps - _like(call, op.Cast(zero, to=int(ir.DataType.FLOAT)), zero)
    dq = dy * op.cast(_spread(call, scale), dy.dtype) if call.wanted[0] else None
    ds = _to_scale(call, dy * op.cast(steps, dy.dtype)) if call.wanted[1] else None
    return (dq, ds, None)[: len(call.inputs)]
