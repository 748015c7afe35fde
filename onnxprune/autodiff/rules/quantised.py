"""Quantisation, straight through (Bengio, Leonard and Courville 2013, arXiv:1308.3432).

Rounding counts as the identity and saturation stops the gradient. The gradient at an integer tensor
q is that of the real number it stands for, in units of its own steps: with q = x / s + z,

    dx = dq / s where q did not saturate        ds = - sum dq x / s^2     (QuantizeLinear)
    dq = dy s                                   ds = sum dy (q - z)       (DequantizeLinear)

A scale is one for the whole tensor, one an index of an axis, or one a block along an axis. Products of
integers, (a - z_a) (b - z_b), have the gradients of products of real numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.contraction import matmul
from onnxprune.autodiff.rules.convolution import conv


def _is_single(call: Call, parameter: Tensor) -> bool:
    return parameter.rank == 0 or parameter.shape == (1,) or call.x.rank == 0


def _blocks(call: Call, axis: int) -> Tensor:
    """The block of each index along the axis."""
    op = call.op
    size = op.size(call.x, [axis], ir.DataType.INT64)
    line = op.Range(op.constant(np.array(0)), size, op.constant(np.array(1)))
    return line / call.int("block_size")


def _spread(call: Call, parameter: Tensor) -> Tensor:
    """A scale or zero point, to be broadcast over the tensor that it belongs to."""
    if _is_single(call, parameter):
        return parameter
    axis = call.int("axis", 1) % call.x.rank
    if call.int("block_size"):
        return call.op.Gather(parameter, _blocks(call, axis), axis=axis)
    return call.op.reshape(parameter, [-1 if a == axis else 1 for a in range(call.x.rank)])


def _to_scale(call: Call, gradient: Tensor) -> Tensor:
    """The sum over all that shares a scale."""
    op, scale, rank = call.op, call.inputs[1], call.x.rank
    if _is_single(call, scale):
        return op.reshape_like(op.sum(gradient, range(rank)), scale)
    axis = call.int("axis", 1) % rank
    if not call.int("block_size"):
        return op.sum(gradient, [a for a in range(rank) if a != axis])
    column = op.reshape(_blocks(call, axis), [-1 if a == axis else 1 for a in range(rank)])
    blocks = op.Expand(column, op.shape_of(call.x))
    zeros = op.Expand(op.constant(np.zeros(()), gradient.dtype), op.shape_of(scale))
    return op.ScatterElements(zeros, blocks, gradient, axis=axis, reduction="add")


@vjp("QuantizeLinear", integer=True)
def quantize_linear(call: Call, dq: Tensor) -> Gradients:
    """See the module's text."""
    op, (x, scale) = call.op, call.inputs[:2]
    limits = call.y.dtype
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
    dq = dy * op.cast(_spread(call, scale), dy.dtype) if call.wanted[0] else None
    ds = None
    if call.wanted[1]:
        zero = call.input(2)
        steps = op.Cast(q, to=int(dy.dtype))
        if zero is not None:
            steps = steps - op.Cast(_spread(call, zero), to=int(dy.dtype))
        ds = op.cast(_to_scale(call, dy * steps), scale.dtype)
    return (dq, ds, None)[: len(call.inputs)]


def _steps(call: Call, place: int, zero: int, shape: Sequence[int], dtype: ir.DataType) -> Tensor:
    """A factor less its zero point, as real numbers; a zero point for each index has this shape."""
    op, q, offset = call.op, call.inputs[place], call.input(zero)
    real = op.Cast(q, to=int(dtype))
    if offset is not None:
        many = offset.rank > 0 and offset.shape != (1,)
        offset = op.Cast(offset, to=int(dtype))
        real = real - (op.reshape(offset, shape) if many else offset)
    real.value.shape = q.value.shape
    return real


@vjp("MatMulInteger", integer=True)
def matmul_integer(call: Call, dy: Tensor) -> Gradients:
    """As MatMul; a zero point a row of A, or a column of B."""
    factors = _steps(call, 0, 2, [-1, 1], dy.dtype), _steps(call, 1, 3, [-1], dy.dtype)
    return (*matmul(replace(call, inputs=factors), dy), None, None)[: len(call.inputs)]


@vjp("ConvInteger", integer=True)
def conv_integer(call: Call, dy: Tensor) -> Gradients:
    """As Conv; a zero point an output channel."""
    channels = [-1] + [1] * (call.x.rank - 1)
    factors = _steps(call, 0, 2, [], dy.dtype), _steps(call, 1, 3, channels, dy.dtype)
    return (*conv(replace(call, inputs=factors), dy), None, None)[: len(call.inputs)]
