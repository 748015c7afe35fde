"""Reading an image at places that the data says: at offsets, and in boxes ("regions of interest").

A box is given in the image's coordinates. Along each axis it has `bins` bins; RoiAlign reads some
samples in each (linearly, between four pixels), MaxRoiPool all the pixels that it touches.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call


@defined("DeformConv")
def deform_conv(call: Call) -> Sequence[Tensor]:
    """Dai et al. 2017, arXiv:1703.06211, with masks (Zhu et al. 2018, arXiv:1811.11168), in 2-D."""
    op, (x, w, offset) = call.op, call.inputs[:3]
    bias, mask = call.input(3), call.input(4)
    if x.rank != 4 or None in (*x.shape, *w.shape, *call.y.shape):
        raise call.error("only 2-D, of static sizes")
    n, c, *size = (int(s or 0) for s in x.shape)
    k, _, *kernel = (int(s or 0) for s in w.shape)
    out = [int(s or 0) for s in call.y.shape[2:]]
    strides, dilations = call.ints("strides", [1, 1]), call.ints("dilations", [1, 1])
    pads, group = call.ints("pads", [0] * 4), call.int("group", 1)
    fields, taps, places = call.int("offset_group", 1), kernel[0] * kernel[1], out[0] * out[1]
    base = np.array(
        [
            [
                [
                    [
                        i * strides[0] - pads[0] + a * dilations[0],
                        j * strides[1] - pads[1] + b * dilations[1],
                    ]
                ]
                for i, j in itertools.product(range(out[0]), range(out[1]))
            ]
            for a, b in itertools.product(range(kernel[0]), range(kernel[1]))
        ]
    ).reshape(1, 1, taps, places, 2)
    moved = op.Transpose(op.reshape(offset, [n, fields, taps, 2, places]), perm=[0, 1, 2, 4, 3])
    pixels = moved + op.constant(base, x.dtype)
    to_grid = op.constant(np.array([2.0 / size[0], 2.0 / size[1]]), x.dtype)
    grid = (pixels + 0.5) * to_grid - 1.0
    grid = op.Gather(grid, [1, 0], axis=-1)  # GridSample counts from the last axis
    images = op.reshape(x, [n * fields, c // fields, *size])
    grid = op.reshape(grid, [n * fields, taps, places, 2])
    mode = "bilinear" if op.graph.opset_imports[""] < 20 else "linear"
    read = op.GridSample(images, grid, mode=mode, padding_mode="zeros", align_corners=0)
    if mask is not None:
        read = read * op.reshape(mask, [n * fields, 1, taps, places])
    columns = op.reshape(read, [n, group, c // group * taps, places])
    rows = op.reshape(w, [1, group, k // group, c // group * taps])
    y = op.reshape(op.MatMul(rows, columns), [n, k, *out])
    return [y if bias is None else y + op.reshape(bias, [1, k, 1, 1])]


_LOWEST = -3e38
"""What loses every maximum."""


def _line(op: Ops, size: Tensor) -> Tensor:
    """The integers from 0 to below `size`."""
    return op.Range(op.constant(np.array(0)), size, op.constant(np.array(1)))


def _column(op: Ops, boxes: Tensor, place: int) -> Tensor:
    """One number of every box, boxes x 1."""
    return op.Slice(boxes, [place], [place + 1], [1])


@dataclass(frozen=True)
class _Samples:
    """Where RoiAlign reads along one axis: boxes x (bins samples).

    Attributes:
        corners: The pixels before and behind, and their shares.
        weight: Of a sample in its bin's mean, 0 where it lies outside the image or does not exist.
        exists: Whether it does: boxes may have fewer samples than others.
    """

    corners: list[tuple[Tensor, Tensor]]
    weight: Tensor
    exists: Tensor


def _samples(call: Call, place: int, bins: int) -> _Samples:
    op, x, rois = call.op, call.x, call.inputs[1]
    scale = call.float("spatial_scale", 1.0)
    half = call.str("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    size = op.size(x, [3 - place], x.dtype)
    start, end = (_column(op, rois, p) * scale - (0.5 if half else 0.0) for p in (place, place + 2))
    extent = end - start if half else op.Max(end - start, 1.0)
    ratio = call.int("sampling_ratio")
    given = op.constant(np.full((1, 1), float(ratio)), x.dtype)
    count = given if ratio else op.Ceil(extent / float(bins))
    most = op.Cast(op.ReduceMax(count, keepdims=0), to=int(ir.DataType.INT64))
    whole = op.cast(_line(op, most * bins), x.dtype)  # those of a bin one after another
    bin_ = op.Floor(whole / op.cast(most, x.dtype))
    within = op.Unsqueeze(whole - bin_ * op.cast(most, x.dtype), [0])
    known = op.Max(count, 1.0)
    position = start + (bin_ + (within + 0.5) / known) * (extent / float(bins))
    exists = within < count
    inside = op.And(op.And(position >= -1.0, op.LessOrEqual(position, size)), exists)
    held = op.Min(op.Max(position, 0.0), size - 1.0)
    low = op.Floor(held)
    share = held - low
    return _Samples(
        [(low, 1.0 - share), (op.Min(low + 1.0, size - 1.0), share)],
        op.cast(inside, x.dtype) / known,
        exists,
    )


@defined("RoiAlign")
def roi_align(call: Call) -> Sequence[Tensor]:
    """He et al. 2017, arXiv:1703.06870, section 3; the maximum is over the weighted pixels."""
    op, (x, _, batch) = call.op, call.inputs
    bins = [call.int("output_height", 1), call.int("output_width", 1)]
    rows, columns = _samples(call, 1, bins[0]), _samples(call, 0, bins[1])
    channels = op.Slice(op.shape_of(x), [1], [2], [0])
    pixels = op.Transpose(x, perm=[0, 2, 3, 1])
    flat = op.Reshape(pixels, op.Concat(op.constant(np.array([-1])), channels, axis=0))
    width = op.size(x, [3], x.dtype)
    image = op.reshape(op.cast(batch, ir.DataType.INT64), [-1, 1, 1])
    pixels_each = op.size(x, [2, 3], ir.DataType.INT64)
    weight = op.Unsqueeze(rows.weight, [2]) * op.Unsqueeze(columns.weight, [1])
    averaged = call.str("mode", "avg") == "avg"
    read = []
    for (i, down), (j, right) in itertools.product(rows.corners, columns.corners):
        place = op.Unsqueeze(i, [2]) * width + op.Unsqueeze(j, [1])
        index = op.Cast(place, to=int(ir.DataType.INT64)) + image * pixels_each
        share = op.Unsqueeze(down, [2]) * op.Unsqueeze(right, [1])
        share = share * (weight if averaged else op.cast(weight > 0.0, x.dtype))
        read.append(op.Gather(flat, index, axis=0) * op.Unsqueeze(share, [3]))
    total = op.Sum(*read) if averaged else op.Max(*read)
    if not averaged:
        exists = op.And(op.Unsqueeze(rows.exists, [2]), op.Unsqueeze(columns.exists, [1]))
        total = op.where(op.Unsqueeze(exists, [3]), total, _LOWEST)
    # boxes x (bins samples) x (bins samples) x channels: the samples of a bin become one
    per_bin = op.Concat(
        op.Slice(op.Shape(batch), [0], [1], [0]),
        *(
            part
            for k in (0, 1)
            for part in (
                op.constant(np.array([bins[k]])),
                op.Slice(op.Shape(total), [k + 1], [k + 2], [0]) / bins[k],
            )
        ),
        channels,
        axis=0,
    )
    grouped = op.Reshape(total, per_bin)
    if averaged:
        pooled = op.ReduceSum(grouped, [2, 4], keepdims=0)
    else:
        pooled = op.ReduceMax(grouped, [2, 4], keepdims=0)
    return [op.Transpose(pooled, perm=[0, 3, 1, 2])]


def _touched(call: Call, place: int, bins: int, size: Tensor) -> Tensor:
    """Whether a bin of a box of MaxRoiPool has a pixel: boxes x bins x size."""
    op, x = call.op, call.x
    start, end = (
        _half_up(op, _column(op, call.inputs[1], p) * call.float("spatial_scale", 1.0))
        for p in (place, place + 2)
    )
    extent = op.Max(end - start + 1.0, 1.0)
    edges = op.constant(np.arange(bins + 1)[None], x.dtype)
    bounds = edges * (extent / float(bins))
    first = op.Floor(op.Slice(bounds, [0], [bins], [1])) + start
    behind = op.Ceil(op.Slice(bounds, [1], [bins + 1], [1])) + start
    line = op.cast(_line(op, size), x.dtype)
    return op.And(line >= op.Unsqueeze(first, [2]), line < op.Unsqueeze(behind, [2]))


def _half_up(op: Ops, x: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero."""
    return op.Sign(x) * op.Floor(op.Abs(x) + 0.5)


@defined("MaxRoiPool")
def max_roi_pool(call: Call) -> Sequence[Tensor]:
    """Girshick 2015, arXiv:1504.08083, section 2.1: the maximum over columns, then over rows."""
    op, (x, rois) = call.op, call.inputs
    height, width = (op.size(x, [axis], ir.DataType.INT64) for axis in (2, 3))
    bins = call.ints("pooled_shape")
    rows, columns = _touched(call, 2, bins[0], height), _touched(call, 1, bins[1], width)
    image = op.Cast(op.Squeeze(_column(op, rois, 0), [1]), to=int(ir.DataType.INT64))
    pixels = op.Unsqueeze(op.Gather(x, image, axis=0), [3])
    across = op.where(op.Unsqueeze(columns, [1, 2]), pixels, _LOWEST)
    strips = op.Unsqueeze(op.ReduceMax(across, [4], keepdims=0), [2])
    down = op.where(op.Unsqueeze(rows, [1, 4]), strips, _LOWEST)
    y = op.ReduceMax(down, [3], keepdims=0)
    return [op.where(y > _LOWEST, y, 0.0)]
