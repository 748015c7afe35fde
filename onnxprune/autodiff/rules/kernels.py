"""The gradient dW of a convolution with respect to its weights.

    Y[n, k, p] = sum_c,t  W[k, c, t] X[n, c, p s + t d - pad]
    dW[k, c, t] = sum_n,p  dY[n, k, p] X[n, c, p s + t d - pad]

It has several forms, equal in value, and differing in speed by an order of magnitude:

    1. the product dY X^T of every sample: windows of one pixel, side by side
    2. the product of dY with the windows of X, gathered pixel by pixel (im2col)
    3. for tap i along the first axis the product of dY, i rows down, with the windows of X along the
       other axes: images so large that gathering whole windows takes longer than rows of zeros
    4. one product a tap over slices of X: groups, sizes that are not known
    5. for tap row i the product of dY's rows with those of X that meet them, for every pair of
       columns; taps (i, j) are its diagonals: depthwise
    6. a convolution of X with dY as kernel, batch and channel axes swapped, strides and
       dilations exchanged: few channels under a large kernel, depthwise on very wide images
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Ops, Shape, Tensor
from onnxprune.autodiff.rules.windows import Window

__all__ = ["weight_gradient"]


def weight_gradient(
    dy: Tensor, x: Tensor, sizes: Shape, w: Window, weights: Tensor, group: int
) -> Tensor:
    """The gradient of a convolution's weights.

    Args:
        dy: Gradient of its output, N x K x output.
        x: Its input, N x C x input.
        sizes: Of the spatial axes of the input.
        w: Its window.
        weights: K x C/group x kernel, whose sizes the result takes.
        group: Its groups.
    """
    outputs, inputs = (size or 0 for size in weights.shape[:2])
    depthwise = inputs == 1 and group == outputs
    if depthwise and w.taps > 1 and w.rank == 2 and _few_columns(sizes, w):
        return _diagonals(dy, x, sizes, w, outputs)
    if w.taps > 1 and (depthwise or (group == 1 and w.taps > 9 and inputs < w.taps)):
        return _swapped_convolution(dy, x, weights, w, group)
    if group == 1 and w.taps == 1 and set(w.strides) == {1} and not any(w.pads):
        return _product_of_pixels(dy, x, sizes, weights)
    if group > 1 or None in sizes:
        return _product_per_tap(dy, x, weights, w, group)
    known = [size or 0 for size in sizes]
    if w.strides[0] > 1 or _whole_windows_pay(outputs, inputs, w, w.windows(known)[0]):
        return _product_of_windows(dy, x, known, w, weights)
    return _product_per_row(dy, x, known, w, weights)


_A_FLOAT, _A_RUN = 100, 10
"""Multiplications that take as long as copying a number; numbers that take as long to copy as to find their run."""
_MOST_TO_ADD = 8
"""Columns of a product for each number that is summed over, up to which products are added up."""
_MANY = 1000
"""Pixels, where they are not known."""


def _whole_windows_pay(outputs: int, inputs: int, w: Window, rows: int) -> bool:
    """Whether the second form is faster than the third, by what is copied and multiplied for each row of windows."""
    padded = 1 + (w.extent[0] - 1) / rows
    tap = _A_FLOAT * (inputs + _A_RUN)
    product = w.taps * inputs * outputs
    whole = w.taps * tap + product
    by_rows = w.taps // w.kernel[0] * tap + w.kernel[0] * _A_FLOAT * outputs + product
    return whole <= padded * by_rows


def _product_of_pixels(dy: Tensor, x: Tensor, sizes: Shape, weights: Tensor) -> Tensor:
    op, (outputs, inputs) = dy.ops, (size or 0 for size in weights.shape[:2])
    pixels = math.prod(size or _MANY for size in sizes)
    left, right = op.reshape(dy, [0, outputs, -1]), op.reshape(x, [0, inputs, -1])
    right = op.Transpose(right, perm=[0, 2, 1])
    return op.reshape_like(_sum_of_products(left, right, outputs, pixels, inputs), weights)


def _product_of_windows(
    dy: Tensor, x: Tensor, sizes: Sequence[int], w: Window, weights: Tensor
) -> Tensor:
    op, (outputs, inputs) = dy.ops, (size or 0 for size in weights.shape[:2])
    out, columns = w.windows(sizes), w.taps * inputs
    windows = op.reshape(_gathered(x, sizes, w, out, inputs), [0, math.prod(out), columns])
    left = op.reshape(dy, [0, outputs, -1])
    found = _sum_of_products(left, windows, outputs, math.prod(out), columns)
    taps = op.reshape(found, [outputs, w.taps, inputs])
    return op.reshape_like(op.Transpose(taps, perm=[0, 2, 1]), weights)


def _product_per_row(
    dy: Tensor, x: Tensor, sizes: Sequence[int], w: Window, weights: Tensor
) -> Tensor:
    op, (outputs, inputs) = dy.ops, (size or 0 for size in weights.shape[:2])
    rows, step, reach = w.kernel[0], w.dilations[0], w.extent[0] - 1
    out = w.windows(sizes)
    row, others = math.prod(out[1:]), w.taps // rows
    pixels, columns = (out[0] + reach) * row, others * inputs
    line = Window((1, *w.kernel[1:]), w.strides, w.dilations, w.begin, w.end)
    windows = _gathered(x, sizes, line, [out[0] + reach, *out[1:]], inputs)
    windows = op.reshape(windows, [0, pixels, columns])
    samples = op.reshape(dy, [0, outputs, -1])
    products = []
    for down in range(0, rows * step, step):
        moved = op.Pad(samples, [0, 0, down * row, 0, 0, (reach - down) * row])
        products.append(_sum_of_products(moved, windows, outputs, pixels, columns))
    stacked = op.Concat(*products, axis=0) if rows > 1 else products[0]
    taps = op.reshape(stacked, [rows, outputs, others, inputs])
    return op.reshape_like(op.Transpose(taps, perm=[1, 3, 0, 2]), weights)


def _sum_of_products(left: Tensor, right: Tensor, rows: int, inner: int, columns: int) -> Tensor:
    """The sum over n of left[n] right[n], N x rows x inner and N x inner x columns.

    Adding the samples' products takes longer than laying the samples side by side where products are large.
    """
    op = left.ops
    if columns <= _MOST_TO_ADD * inner:
        return op.sum(op.MatMul(left, right), [0])
    beside = op.reshape(op.Transpose(left, perm=[1, 0, 2]), [rows, -1])
    return op.MatMul(beside, op.reshape(right, [-1, columns]))


def _gathered(
    x: Tensor, sizes: Sequence[int], w: Window, out: Sequence[int], channels: int
) -> Tensor:
    """What the windows see, N x windows x taps x C: channels last, so that a pixel is one run of numbers."""
    op, rank = x.ops, w.rank
    image = op.Transpose(x, perm=[0, *range(2, 2 + rank), 1])
    if any(w.pads):
        image = op.Pad(image, [0, *w.begin, 0, 0, *w.end, 0])
    sizes = [size + b + e for size, b, e in zip(sizes, w.begin, w.end, strict=True)]
    places = np.zeros([1] * (2 * rank), np.int64)
    for axis, size in enumerate(sizes):
        starts = np.arange(out[axis]) * w.strides[axis]
        seen = starts[:, None] + np.arange(w.kernel[axis]) * w.dilations[axis]
        shape = [1] * (2 * rank)
        shape[axis], shape[rank + axis] = seen.shape
        places = places * size + seen.reshape(shape)
    pixels = op.reshape(image, [0, math.prod(sizes), channels])
    return op.Gather(pixels, op.constant(places.reshape(math.prod(out), w.taps)), axis=1)


def _channels_first(w: Window) -> list[int]:
    return [1, 0, *range(2, 2 + w.rank)]


def _product_per_tap(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    op = dy.ops
    outputs, inputs = (size or 0 for size in weights.shape[:2])
    image = op.transpose(x, _channels_first(w))
    dy = op.transpose(dy, _channels_first(w))
    left = op.reshape(dy, [outputs, -1] if group == 1 else [group, outputs // group, -1])
    taps = []
    for part in _slices(op, image, w):
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


_MOST_COLUMNS = 64
"""A tap's share of an image's columns, up to which a product over all pairs of columns is faster."""


def _few_columns(sizes: Shape, w: Window) -> bool:
    return None not in sizes and (sizes[1] or 0) <= _MOST_COLUMNS * w.kernel[1]


def _diagonals(dy: Tensor, x: Tensor, sizes: Shape, w: Window, channels: int) -> Tensor:
    op, (height, width) = dy.ops, (size or 0 for size in sizes)
    (down, right), (s_down, s_right), (d_down, d_right) = w.kernel, w.strides, w.dilations
    out = w.windows([height, width])
    image, dy = (op.transpose(each, _channels_first(w)) for each in (x, dy))
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
            left = op.Gather(dy, range(first, last + 1), axis=2)  # a Slice runs on one thread
        start, end = first * s_down + above, last * s_down + above + 1
        if (start, end, s_down) != (0, height, 1):
            seen = op.Gather(image, range(start, end, s_down), axis=2)
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


def _swapped_convolution(dy: Tensor, x: Tensor, weights: Tensor, w: Window, group: int) -> Tensor:
    op, axes, swap = dy.ops, list(range(2, 2 + w.rank)), _channels_first(w)
    inputs = weights.shape[1] or 0
    image = op.transpose(x, swap)
    if group > 1:  # (g c) x N  ->  c x (g N): the batches of the groups side by side
        image = op.reshape_before(image, [group, inputs, -1], x, 2)
        image = op.Transpose(image, perm=[1, 0, 2, *(a + 1 for a in axes)])
        image = op.reshape_before(image, [inputs, -1], x, 2)
    result = op.Conv(
        image,
        op.transpose(dy, swap),
        strides=list(w.dilations),
        dilations=list(w.strides),
        pads=w.pads,
        group=group,
    )
    if any(s > 1 for s in w.strides):  # inputs after the last window make it more than the kernel
        result = op.Slice(result, [0] * w.rank, list(w.kernel), axes)
    return op.transpose(result, swap)
