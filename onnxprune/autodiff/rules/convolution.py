"""Convolutions.

    Y[n, k, p] = sum_c,t  W[k, c, t] X[n, c, p s + t d - pad]

The gradients have several forms, equal in value, and differing in speed by an order of magnitude:

    dX  1. a convolution of dY with W rotated and its channel axes swapped: stride 1
        2. a transposed convolution of dY with W: otherwise
    dW  1. one matrix product a tap t of the kernel, dY[k, (n p)] X_t[c, (n p)]^T
           over slices X_t of X: mostly
        2. a convolution of X with dY as kernel, batch and channel axes swapped, strides and
           dilations exchanged: few channels under a large kernel, and depthwise
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from onnxprune.autodiff.builder import Ops, Shape, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.windows import Window, scatter_windows, window


@vjp("Conv")
def conv(call: Call, dy: Tensor) -> Gradients:
    """One to three spatial axes, grouped or not."""
    x, weights = call.inputs[:2]
    kernel = [size for size in weights.shape[2:] if size is not None]
    w = window(call, kernel, x.shape[2:])
    group = call.int("group", 1)
    dx = input_gradient(dy, call.y.shape[2:], x, weights, w, group) if call.wanted[0] else None
    dw = weight_gradient(dy, x, weights, w, group) if call.wanted[1] else None
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
    if any(begin + end):  # outputs that no window reaches
        dy = op.Pad(dy, [0, 0, *begin, 0, 0, *end])
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
    return (dx, _product_per_tap(x, dy, weights, w, group), bias)[: len(call.inputs)]


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
        half = total // 2
        upper = call.str("auto_pad") == "SAME_UPPER"
        begin.append(half if upper else total - half)
        end.append(total - half if upper else half)
    return replace(w, begin=tuple(begin), end=tuple(end)), surplus


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
    if w.taps > 1:
        weights = op.Slice(weights, [-1] * w.rank, [-(2**31)] * w.rank, axes, [-1] * w.rank)
    if group == 1:
        return op.Transpose(weights, perm=[1, 0, *axes])
    if inputs == 1 and outputs == group:
        return weights
    split = op.reshape(weights, [group, outputs // group, inputs, *w.kernel])
    swapped = op.Transpose(split, perm=[0, 2, 1, *(a + 1 for a in axes)])
    return op.reshape(swapped, [group * inputs, outputs // group, *w.kernel])


def weight_gradient(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    """The gradient dW of a convolution."""
    outputs, inputs = weights.shape[:2]
    depthwise = inputs == 1 and group == outputs
    if w.taps > 1 and (depthwise or (group == 1 and w.taps > 9 and (inputs or 0) < w.taps)):
        return _swapped_convolution(dy, x, weights, w, group)
    return _product_per_tap(dy, x, weights, w, group)


def _product_per_tap(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    op, axes = dy.ops, list(range(2, 2 + w.rank))
    outputs, inputs = (size or 0 for size in weights.shape[:2])
    left = _channels_first(op, dy, axes, group, outputs // group)
    taps = []
    padded = _pad(op, op.transpose(x, [1, 0, *axes]), w)
    for tap in itertools.product(*(range(k) for k in w.kernel)):
        shifted = _shift(op, padded, w, tap)
        right = op.reshape(shifted, [inputs, -1] if group == 1 else [group, inputs, -1])
        swap = [1, 0] if group == 1 else [0, 2, 1]
        taps.append(op.MatMul(left, op.Transpose(right, perm=swap)))
    if len(taps) == 1:
        return op.reshape_like(taps[0], weights)
    stacked = op.Concat(*(op.Unsqueeze(tap, [-1]) for tap in taps), axis=-1)
    return op.reshape_like(stacked, weights)


def _channels_first(op: Ops, dy: Tensor, axes: list[int], group: int, outputs: int) -> Tensor:
    """N x (g k) x p  ->  k x (N p), or g x k x (N p)."""
    swapped = op.transpose(dy, [1, 0, *axes])
    return op.reshape(swapped, [outputs, -1] if group == 1 else [group, outputs, -1])


def _pad(op: Ops, x: Tensor, w: Window) -> Tensor:
    return op.Pad(x, [0, 0, *w.begin, 0, 0, *w.end]) if any(w.pads) else x


def _shift(op: Ops, x: Tensor, w: Window, tap: tuple[int, ...]) -> Tensor:
    """What the tap reads of the padded input; ends are counted from the end, for any size."""
    starts = [t * d for t, d in zip(tap, w.dilations, strict=True)]
    ends = [s + 1 - e for s, e in zip(starts, w.extent, strict=True)]
    if w.taps == 1 and all(s == 1 for s in w.strides):
        return x
    ends = [2**31 if end == 0 else end for end in ends]
    return op.Slice(x, starts, ends, list(range(2, 2 + w.rank)), list(w.strides))


def _swapped_convolution(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    op, axes = dy.ops, list(range(2, 2 + w.rank))
    inputs = weights.shape[1] or 0
    image = op.transpose(x, [1, 0, *axes])
    if group > 1:  # (g c) x N  ->  c x (g N): the batches of the groups side by side
        image = op.reshape_before(image, [group, inputs, -1], x, 2)
        image = op.Transpose(image, perm=[1, 0, 2, *(a + 1 for a in axes)])
        image = op.reshape_before(image, [inputs, -1], x, 2)
    result = op.Conv(
        image,
        op.transpose(dy, [1, 0, *axes]),
        strides=list(w.dilations),
        dilations=list(w.strides),
        pads=w.pads,
        group=group,
    )
    if any(s > 1 for s in w.strides):  # inputs after the last window make it more than the kernel
        result = op.Slice(result, [0] * w.rank, list(w.kernel), axes)
    return op.transpose(result, [1, 0, *axes])
