"""Convolutions.

    Y[n, k, p] = sum_c,t  W[k, c, t] X[n, c, p s + t d - pad]

The gradient dX has several forms, equal in value:

    1. the product W^T dY of every sample: kernels of one tap
    2. a convolution of dY with W rotated and its channel axes swapped: stride 1
    3. a transposed convolution of dY with W: otherwise

Those of dW are in `kernels.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxprune.autodiff.builder import Shape, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.kernels import weight_gradient
from onnxprune.autodiff.rules.windows import Window, scatter_windows, window


@vjp("Conv")
def conv(call: Call, dy: Tensor) -> Gradients:
    """One to three spatial axes, grouped or not."""
    x, weights = call.inputs[:2]
    kernel = [size for size in weights.shape[2:] if size is not None]
    w = window(call, kernel, x.shape[2:])
    group = call.int("group", 1)
    dx = input_gradient(dy, call.y.shape[2:], x, weights, w, group) if call.wanted[0] else None
    dw = weight_gradient(dy, x, x.shape[2:], w, weights, group) if call.wanted[1] else None
    return (dx, dw, _bias_gradient(dy, w))[: len(call.inputs)]


@vjp("ConvTranspose")
def conv_transpose(call: Call, dy: Tensor) -> Gradients:
    """The transpose of a convolution: that convolution gives dX; X and dY trade places in dW."""
    op, (x, weights) = call.op, call.inputs[:2]
    kernel = [size for size in weights.shape[2:] if size is not None]
    w, surplus = _transposed_window(call, kernel)
    group = call.int("group", 1)
    bias = _bias_gradient(dy, w)
    begin = [min(b, 0) for b in w.begin]
    end = [min(e, 0) - n for e, n in zip(w.end, surplus, strict=True)]
    sizes = call.y.shape[2:]
    if any(begin + end):  # outputs that no window reaches
        dy = op.Pad(dy, [0, 0, *begin, 0, 0, *end])
        sizes = tuple(s and s + b + e for s, b, e in zip(sizes, begin, end, strict=True))
        w = replace(w, begin=tuple(max(b, 0) for b in w.begin), end=tuple(max(e, 0) for e in w.end))
    dx = op.Conv(
        dy,
        weights,
        strides=list(w.strides),
        dilations=list(w.dilations),
        pads=w.pads,
        group=group,
        kernel_shape=kernel,
    )
    return (dx, weight_gradient(x, dy, sizes, w, weights, group), bias)[: len(call.inputs)]


def _transposed_window(call: Call, kernel: Sequence[int]) -> tuple[Window, list[int]]:
    """The window of a ConvTranspose, and how many outputs lie after all windows' reach.

    With `output_shape` or automatic padding it is the padding that follows from the sizes.
    """
    rank = len(kernel)
    w = window(call, kernel, (None,) * rank, automatic=False)
    rests = call.ints("output_padding", [0] * rank)
    surplus = [rest // s * s for rest, s in zip(rests, w.strides, strict=True)]
    if "output_shape" not in call.node.attributes and call.str("auto_pad", "NOTSET") in {
        "NOTSET",
        "VALID",
    }:
        return w, surplus
    begin, end = [], []
    for axis in range(rank):
        size, out = call.x.shape[2 + axis], call.y.shape[2 + axis]
        if size is None or out is None:
            raise call.error("its padding follows from its size, which is dynamic")
        total = w.strides[axis] * (size - 1) + rests[axis] + w.extent[axis] - out
        surplus[axis] += max(-total, 0)
        total = max(total, 0)
        half = total // 2
        upper = call.str("auto_pad") == "SAME_UPPER"
        begin.append(half if upper else total - half)
        end.append(total - half if upper else half)
    return replace(w, begin=tuple(begin), end=tuple(end)), surplus


@vjp("Col2Im")
def col2im(call: Call, dy: Tensor) -> Gradients:
    """The columns of dY: a convolution with the identity, one group a channel."""
    block = call.constant(2)
    assert block is not None
    kernel, channels = [int(size) for size in block], call.y.shape[1] or 0
    w = window(call, kernel, (None,) * len(kernel))
    identity = np.eye(w.taps).reshape(w.taps, 1, *kernel)
    weights = call.op.constant(np.tile(identity, (channels, *[1] * (len(kernel) + 1))), dy.dtype)
    columns = call.op.Conv(
        dy,
        weights,
        strides=list(w.strides),
        dilations=list(w.dilations),
        pads=w.pads,
        group=channels,
    )
    return call.op.reshape_like(columns, call.x), None, None


def _bias_gradient(dy: Tensor, w: Window) -> Tensor:
    return dy.ops.sum(dy, [0, *range(2, 2 + w.rank)])


def input_gradient(
    dy: Tensor, out: Shape, x: Tensor, weights: Tensor, w: Window, group: int
) -> Tensor:
    """The gradient dX of a convolution whose output has the spatial sizes `out`."""
    inner = [extent - 1 - b for extent, b in zip(w.extent, w.begin, strict=True)]
    outer = [extent - 1 - e for extent, e in zip(w.extent, w.end, strict=True)]
    if any(s != 1 for s in w.strides) or min(*inner, *outer) < 0:
        return scatter_windows(weights, dy, out, x, w, group)
    if w.taps == 1 and group == 1 and not any(w.pads):
        op, (outputs, inputs) = dy.ops, weights.shape[:2]
        turned = op.Transpose(op.reshape(weights, [outputs or 0, inputs or 0]), perm=[1, 0])
        return op.reshape_like(op.MatMul(turned, op.Reshape(dy, [0, 0, -1])), x)
    return dy.ops.Conv(
        dy,
        _rotate(weights, w, group),
        dilations=list(w.dilations),
        pads=[*inner, *outer],
        group=group,
        kernel_shape=list(w.kernel),
    )


def _rotate(weights: Tensor, w: Window, group: int) -> Tensor:
    """(g K/g) x C/g x t  ->  (g C/g) x K/g x t, with t reversed."""
    op, axes = weights.ops, list(range(2, 2 + w.rank))
    outputs, inputs = (size or 0 for size in weights.shape[:2])
    if group == 1:  # rows of K numbers are moved, not single ones
        rows = op.Transpose(op.reshape(weights, [outputs, inputs * w.taps]), perm=[1, 0])
        order = np.arange(inputs * w.taps).reshape(inputs, w.taps)[:, ::-1].ravel()
        rows = op.reshape(op.Gather(rows, order, axis=0), [inputs, w.taps, outputs])
        return op.reshape(op.Transpose(rows, perm=[0, 2, 1]), [inputs, outputs, *w.kernel])
    if w.taps > 1:
        weights = op.Slice(weights, [-1] * w.rank, [-(2**31)] * w.rank, axes, [-1] * w.rank)
    if inputs == 1 and outputs == group:
        return weights
    split = op.reshape(weights, [group, outputs // group, inputs, *w.kernel])
    swapped = op.Transpose(split, perm=[0, 2, 1, *(a + 1 for a in axes)])
    return op.reshape(swapped, [group * inputs, outputs // group, *w.kernel])
