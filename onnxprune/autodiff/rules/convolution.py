"""Convolutions.

    Y[n, k, p] = sum_c,t  W[k, c, t] X[n, c, p s + t d - pad]

The gradients have several forms, equal in value, and differing in speed by an order of magnitude:

    dX  1. the product W^T dY of every sample: kernels of one tap
        2. a convolution of dY with W rotated and its channel axes swapped: stride 1
        3. a transposed convolution of dY with W: otherwise
    dW  1. one matrix product a tap t of the kernel, dY[k, (n p)] X_t[c, (n p)]^T
           over slices X_t of X: mostly
        2. for tap (i, j) the product of every sample's dY, i rows down, with its X, j columns on:
           images so large that rows and columns of zeros around them count for little
        3. for tap row i the product of dY's rows with those of X that meet them, for every pair of
           columns; taps (i, j) are its diagonals: depthwise
        4. a convolution of X with dY as kernel, batch and channel axes swapped, strides and
           dilations exchanged: few channels under a large kernel, depthwise on very wide images
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

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
    if depthwise and w.taps > 1 and w.rank == 2 and _few_columns(x, w):
        return _diagonals(dy, x, weights, w)
    if w.taps > 1 and (depthwise or (group == 1 and w.taps > 9 and (inputs or 0) < w.taps)):
        return _swapped_convolution(dy, x, weights, w, group)
    if group == 1 and w.rank == 2 and w.strides == (1, 1) and _large(x, weights, w):
        return _product_per_shift(dy, x, weights, w)
    return _product_per_tap(dy, x, weights, w, group)


_MOST_ZEROS = 0.15
_NARROW = 64
"""Channels; below, one product for all taps is faster than one for each."""


def _large(x: Tensor, weights: Tensor, w: Window) -> bool:
    """Whether a sample is large against the zeros around it, and against the weights."""
    if None in x.shape[1:]:
        return False
    outputs, inputs, *sizes = (size or 0 for size in (weights.shape[0], *x.shape[1:]))
    padded = [s + b + e for s, b, e in zip(sizes, w.begin, w.end, strict=True)]
    inside = math.prod(p - extent + 1 for p, extent in zip(padded, w.extent, strict=True))
    area = math.prod(padded)
    few_zeros = area <= (1 + _MOST_ZEROS) * inside
    return few_zeros and w.taps * inputs * outputs <= (inputs + outputs) * area


def _product_per_shift(dy: Tensor, x: Tensor, weights: Tensor, w: Window) -> Tensor:
    """The product of X j columns on with dY i rows down, both laid out in the padded image's rows."""
    op, (outputs, inputs) = dy.ops, weights.shape[:2]
    (rows, columns), (down, along) = w.kernel, w.dilations
    if w.taps > 1 or any(w.pads):
        high, wide = (extent - 1 for extent in w.extent)
        width = (x.shape[3] or 0) + w.begin[1] + w.end[1]
        below = op.Reshape(op.Pad(dy, [0, 0, high, 0, 0, 0, high, wide]), [0, 0, -1])
        image = op.Pad(x, [0, 0, *w.begin, 0, 0, w.end[0] + 1, w.end[1]])
        image = op.Reshape(image, [0, 0, -1])
        downs = [i * down * width for i in range(rows)]
        starts = [j * along for j in range(columns)]  # the row added above makes up for them
        lefts = [op.Slice(below, [high * width - d], [-d or 2**31], [2]) for d in downs]
        rights = [op.Slice(image, [start], [start - width], [2]) for start in starts]
    else:
        lefts, rights = [op.Reshape(dy, [0, 0, -1])], [op.Reshape(x, [0, 0, -1])]
    if w.taps > 1 and min(outputs or 0, inputs or 0) < _NARROW:
        lefts, rights = [op.Concat(*lefts, axis=1)], [op.Concat(*rights, axis=1)]
    found = [
        [op.sum(op.MatMul(left, op.Transpose(right, perm=[0, 2, 1])), [0]) for right in rights]
        for left in lefts
    ]
    lines = [op.Concat(*line, axis=1) if len(line) > 1 else line[0] for line in found]
    taps = op.Concat(*lines, axis=0) if len(lines) > 1 else lines[0]
    split = op.reshape(taps, [rows, outputs or 0, columns, inputs or 0])
    return op.transpose(split, [1, 3, 0, 2])


_MOST_COLUMNS = 64
"""A tap's share of an image's columns, up to which a product over all pairs of columns is faster."""


def _few_columns(x: Tensor, w: Window) -> bool:
    return None not in x.shape[1:] and (x.shape[3] or 0) <= _MOST_COLUMNS * w.kernel[1]


def _diagonals(dy: Tensor, x: Tensor, weights: Tensor, w: Window) -> Tensor:
    op, (_, channels, height, width) = dy.ops, (size or 0 for size in x.shape)
    (down, right), (s_down, s_right), (d_down, d_right) = w.kernel, w.strides, w.dilations
    out = [
        (size + b + e - extent) // s + 1
        for size, b, e, extent, s in zip(
            (height, width), w.begin, w.end, w.extent, w.strides, strict=True
        )
    ]
    image, dy = op.Transpose(x, perm=[1, 0, 2, 3]), op.Transpose(dy, perm=[1, 0, 2, 3])
    wide = width + w.begin[1] + w.end[1]
    found = []
    for i in range(down):
        above = i * d_down - w.begin[0]  # row r of dY meets row r s + above of X
        first = max(-(above // s_down), 0)
        last = min((height - 1 - above) // s_down, out[0] - 1)
        if last < first:
            found.append(op.constant(np.zeros((channels, right)), x.dtype))
            continue
        left, seen = dy, image
        if (first, last) != (0, out[0] - 1):
            left = op.Slice(dy, [first], [last + 1], [2])
        start, end = first * s_down + above, last * s_down + above + 1
        if (start, end, s_down) != (0, height, 1):
            seen = op.Slice(image, [start], [end], [2], [s_down])
        left = op.reshape(left, [channels, -1, out[1]])
        pairs = op.MatMul(
            op.Transpose(left, perm=[0, 2, 1]), op.reshape(seen, [channels, -1, width])
        )
        pairs = op.Pad(pairs, [0, 0, w.begin[1], 0, 0, w.end[1]])
        # Longer rows put row q of the pairs s q to the left: a diagonal becomes a column.
        flat = op.Pad(op.reshape(pairs, [channels, -1]), [0, 0, 0, out[1] * s_right])
        skewed = op.reshape(flat, [channels, out[1], wide + s_right])
        found.append(op.Slice(op.sum(skewed, [1]), [0], [right * d_right], [1], [d_right]))
    return op.reshape(op.Concat(*found, axis=1), [channels, 1, down, right])


def _product_per_tap(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    op, axes = dy.ops, list(range(2, 2 + w.rank))
    outputs, inputs = (size or 0 for size in weights.shape[:2])
    image = op.transpose(x, [1, 0, *axes])
    dy = op.transpose(dy, [1, 0, *axes])
    width = x.shape[-1] if x.value.shape is not None else None
    if w.rank == 2 and w.taps > 1 and w.strides == (1, 1) and width is not None:
        dy, slices = _contiguous_slices(op, dy, image, w, width + w.begin[1] + w.end[1])
    else:
        slices = _slices(op, image, w)
    left = op.reshape(dy, [outputs, -1] if group == 1 else [group, outputs // group, -1])
    taps = []
    for part in slices:
        right = op.reshape(part, [inputs, -1] if group == 1 else [group, inputs, -1])
        swap = [1, 0] if group == 1 else [0, 2, 1]
        taps.append(op.MatMul(left, op.Transpose(right, perm=swap)))
    if len(taps) == 1:
        return op.reshape_like(taps[0], weights)
    # Whole taps one behind the other, then turned: copies number by number take several times as long.
    stacked = op.Concat(*(op.reshape(tap, [1, -1]) for tap in taps), axis=0)
    return op.reshape_like(op.Transpose(stacked, perm=[1, 0]), weights)


def _slices(op: Ops, image: Tensor, w: Window) -> list[Tensor]:
    """What each tap reads of the image; ends are counted from the end, for any size."""
    if any(w.pads):
        image = op.Pad(image, [0, 0, *w.begin, 0, 0, *w.end])
    if w.taps == 1 and all(s == 1 for s in w.strides):
        return [image]
    found = []
    for tap in itertools.product(*(range(k) for k in w.kernel)):
        starts = [t * d for t, d in zip(tap, w.dilations, strict=True)]
        ends = [s + 1 - e or 2**31 for s, e in zip(starts, w.extent, strict=True)]
        found.append(op.Slice(image, starts, ends, list(range(2, 2 + w.rank)), list(w.strides)))
    return found


def _contiguous_slices(
    op: Ops, dy: Tensor, image: Tensor, w: Window, width: int
) -> tuple[Tensor, list[Tensor]]:
    """The same without cutting rows, which copies many times faster.

    With dY zero-padded to the width of the padded image, a tap reads one run of the image's rows
    laid end to end; what it reads beyond the end of a row meets those zeros.
    """
    dy = op.Pad(dy, [0, 0, 0, 0, 0, 0, 0, w.extent[1] - 1])
    image = op.Pad(image, [0, 0, *w.begin, 0, 0, w.end[0] + 1, w.end[1]])
    flat = op.Reshape(image, [0, 0, -1])
    found = []
    for i, j in itertools.product(*(range(k) for k in w.kernel)):
        start = i * w.dilations[0] * width + j * w.dilations[1]
        end = start - (w.extent[0] - 1) * width - width  # from the end: the extra row is the last
        found.append(op.Slice(flat, [start], [end or 2**31], [2]))
    return dy, found


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
