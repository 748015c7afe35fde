"""Resampling on a grid: linear in x and separable, y = x M_1 M_2 ... with one matrix an axis.

The matrix of an axis is what Resize makes of the identity along it, in whatever mode; so

    dx = dy M_1^T M_2^T ...

needs none of the modes' formulas, and no static sizes either.
"""

from __future__ import annotations

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp

_KEPT = (
    "antialias",
    "coordinate_transformation_mode",
    "cubic_coeff_a",
    "exclude_outside",
    "mode",
    "nearest_mode",
)


@vjp("Resize")
def resize(call: Call, dy: Tensor) -> Gradients:
    """Axis by axis, for those whose size or scale changes."""
    x = call.x
    axes = [axis % x.rank for axis in call.ints("axes", list(range(x.rank)))]
    for place, axis in enumerate(axes):
        if not _unchanged(call, place, axis):
            matrix = _matrix(call, place, axis, len(axes))
            dy = _along(call.op, dy, matrix, axis, x.rank)
    return (dy, *[None] * (len(call.inputs) - 1))


def _unchanged(call: Call, place: int, axis: int) -> bool:
    if call.str("coordinate_transformation_mode") == "tf_crop_and_resize":
        return False
    scales = None if call.input(2) is None else call.inputs[2].constant()
    if scales is not None and scales.size:
        return float(scales.ravel()[place]) == 1.0
    size = call.x.shape[axis]
    return size is not None and size == call.y.shape[axis]


def _matrix(call: Call, place: int, axis: int, count: int) -> Tensor:
    """Shape out x in: the identity, resized along its last axis, turned."""
    op, x = call.op, call.x
    size = op.Slice(op.shape_of(x), [axis], [axis + 1], [0])
    eye = _eye(op, x, axis, size)
    roi, scales, sizes = call.input(1), call.input(2), call.input(3)
    if call.str("coordinate_transformation_mode") == "tf_crop_and_resize":
        assert roi is not None
        start = op.Slice(roi, [place], [place + 1], [0])
        stop = op.Slice(roi, [count + place], [count + place + 1], [0])
        ends = [op.constant(np.full(3, fill), roi.dtype) for fill in (0.0, 1.0)]
        roi = op.Concat(ends[0], start, ends[1], stop, axis=0)
    else:
        roi = None
    attributes = {
        name: call.node.attributes[name].value for name in _KEPT if name in call.node.attributes
    }
    if sizes is None:
        scale = op.Slice(scales, [place], [place + 1], [0])
        one = op.constant(np.ones(3, np.float32))
        resized = op.Resize(eye, roi, op.Concat(one, scale, axis=0), **attributes)
    else:
        new = op.Slice(op.shape_of(call.y), [axis], [axis + 1], [0])
        all_sizes = op.Concat(op.constant(np.array([1, 1])), size, new, axis=0)
        resized = op.Resize(eye, roi, None, all_sizes, **attributes)
    return op.Transpose(op.Squeeze(resized, [0, 1]), perm=[1, 0])


def _eye(op: Ops, x: Tensor, axis: int, size: Tensor) -> Tensor:
    """The identity of an axis' size, 1 x 1 x size x size."""
    static = x.shape[axis]
    if static is not None:
        return op.constant(np.eye(static)[None, None], x.dtype)
    scalar = op.Squeeze(size, [0])
    line = op.Range(op.constant(np.array(0)), scalar, op.constant(np.array(1)))
    ends = op.constant(np.array([0.0, 1.0]), x.dtype)
    return op.Unsqueeze(op.OneHot(line, scalar, ends), [0, 1])


def _along(op: Ops, dy: Tensor, matrix: Tensor, axis: int, rank: int) -> Tensor:
    """The product of dy with the matrix along one axis."""
    if axis == rank - 1:
        return op.MatMul(dy, matrix)
    if axis == rank - 2:
        return op.MatMul(op.Transpose(matrix, perm=[1, 0]), dy)
    perm = [a for a in range(rank) if a != axis] + [axis]
    inverse = sorted(range(rank), key=perm.__getitem__)
    return op.Transpose(op.MatMul(op.Transpose(dy, perm=perm), matrix), perm=inverse)
