"""The discrete Fourier transform: linear, so that its gradient is its adjoint.

With F the forward transform of n points and real and imaginary parts along the last axis,

    forward   dx = F^H dy = n F^-1 dy        inverse   dx = (F^-1)^H dy = F dy / n

A signal cut or filled up to n points gets its gradient filled up or cut. The one-sided forward
transform leaves bins out, whose gradient is zero; the one-sided inverse reads each bin but the first
and, for even n, the last as two.
"""

from __future__ import annotations

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp


@vjp("DFT")
def dft(call: Call, dy: Tensor) -> Gradients:
    """Real or complex signals, along any axis."""
    op, x = call.op, call.x
    axis = _axis(call) % x.rank
    length = op.Slice(op.shape_of(x), [axis], [axis + 1], [0])
    given, inverse, one_sided = call.input(1), call.int("inverse"), call.int("onesided")
    points = length if given is None else op.reshape(given, [1])
    if given is None and one_sided and inverse:
        points = op.Slice(op.shape_of(call.y), [axis], [axis + 1], [0])
    scale = op.cast(points, x.dtype)
    if one_sided and inverse:
        dx = _transform(op, dy, points, axis, onesided=1) / scale
        dx = dx * _twice_between(op, dx, points, axis, x.rank)
    else:
        whole = _resized(op, dy, points, axis)
        dx = _transform(op, whole, points, axis, inverse=1 - inverse)
        dx = dx / scale if inverse else dx * scale
    dx = _resized(op, dx, length, axis)
    if x.shape[-1] == 1:
        dx = op.Slice(dx, [0], [1], [x.rank - 1])
    return (dx, None, None)[: len(call.inputs)]


def _axis(call: Call) -> int:
    """An attribute before opset 20, an input since."""
    if _is_attribute(call.op):
        return call.int("axis", 1)
    axis = call.constant(2)
    return -2 if axis is None else int(axis.ravel()[0])


def _is_attribute(op: Ops) -> bool:
    return op.graph.opset_imports[""] < 20


def _transform(
    op: Ops, x: Tensor, points: Tensor, axis: int, inverse: int = 0, onesided: int = 0
) -> Tensor:
    size = op.Squeeze(points, [0])
    if _is_attribute(op):
        return op.DFT(x, size, axis=axis, inverse=inverse, onesided=onesided)
    return op.DFT(x, size, op.constant(np.array(axis)), inverse=inverse, onesided=onesided)


def _resized(op: Ops, x: Tensor, length: Tensor, axis: int) -> Tensor:
    """Cut or filled up with zeros at the end of an axis."""
    cut = op.Slice(x, [0], length, [axis])
    missing = length - op.Slice(op.Shape(cut), [axis], [axis + 1], [0])
    pads = op.Concat(op.constant(np.array([0])), missing, axis=0)
    return op.Pad(cut, pads, None, [axis])


def _twice_between(op: Ops, x: Tensor, points: Tensor, axis: int, rank: int) -> Tensor:
    """2 for the bins that stand for two, 1 for the first and the one that is its own mirror image."""
    bins = op.Gather(op.Shape(x), op.constant(np.array(axis)))
    line = op.Range(op.constant(np.array(0)), bins, op.constant(np.array(1)))
    alone = op.Or(op.Equal(line, 0), op.Equal(line * 2, points))
    one, two = (op.constant(np.array(k), x.dtype) for k in (1.0, 2.0))
    return op.Unsqueeze(op.where(alone, one, two), list(range(1, rank - axis)))
