"""Reading and writing at computed positions: a gather's gradient is a scatter, and the reverse."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, no_gradient, vjp

no_gradient("NonMaxSuppression")


@vjp("Gather")
def gather(call: Call, dy: Tensor) -> Gradients:
    """Rows read several times get the sum."""
    op, (x, indices) = call.op, call.inputs
    axis = call.int("axis") % x.rank
    at = indices.constant()
    if at is not None and at.ndim == 0 and x.shape[axis] is not None:  # one row: pad around it
        row, size = int(at) % x.shape[axis], x.shape[axis]
        before, after = [0] * x.rank, [0] * x.rank
        before[axis], after[axis] = row, size - 1 - row
        return op.Pad(op.Unsqueeze(dy, [axis]), [*before, *after]), None
    flat = op.cast(op.reshape(indices, [-1]), ir.DataType.INT64)
    # dy has the indices' axes in place of `axis`: make them one, and bring it to the front
    rest = [*range(axis), *range(axis + indices.rank, call.y.rank)]
    front = op.transpose(dy, [*range(axis, axis + indices.rank), *rest])
    lead = op.transpose(x, [axis, *(a for a in range(x.rank) if a != axis)])
    shape = op.Concat(op.Shape(flat), op.Slice(op.Shape(lead), [1], [x.rank], [0]), axis=0)
    rows = op.Reshape(front, shape) if indices.rank != 1 else front
    zeros = op.Expand(op.constant(np.zeros(()), dy.dtype), op.Shape(lead))
    written = op.ScatterND(zeros, op.Unsqueeze(flat, [1]), rows, reduction="add")
    return op.transpose(written, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)]), None


@vjp("GatherElements")
def gather_elements(call: Call, dy: Tensor) -> Gradients:
    """Elements read several times get the sum."""
    op, (x, indices) = call.op, call.inputs
    zeros = op.zeros_like(x)
    return op.ScatterElements(zeros, indices, dy, axis=call.int("axis"), reduction="add"), None


@vjp("GatherND")
def gather_nd(call: Call, dy: Tensor) -> Gradients:
    """Batch axes become coordinates like the others."""
    op, (x, indices), batch = call.op, call.inputs, call.int("batch_dims")
    if batch:
        at = indices
        for axis in range(batch):
            line = op.Range(
                op.constant(np.array(0)),
                op.Squeeze(op.Gather(op.shape_of(x), [axis]), [0]),
                op.constant(np.array(1)),
            )
            column = op.reshape(line, [-1 if a == axis else 1 for a in range(indices.rank)])
            shape = op.Slice(op.shape_of(indices), [0], [indices.rank - 1], [0])
            shape = op.Concat(shape, op.constant(np.array([1])), axis=0)
            grid = op.Expand(column, shape)
            at = grid if axis == 0 else op.Concat(at, grid, axis=-1)
        indices = op.Concat(at, indices, axis=-1)
    return op.ScatterND(op.zeros_like(x), indices, dy, reduction="add"), None


@vjp("ScatterElements", "Scatter")
def scatter_elements(call: Call, dy: Tensor) -> Gradients:
    """What was overwritten gets nothing; what was written or added reads its place."""
    op, (_, indices, updates), axis = call.op, call.inputs, call.int("axis")
    reduction = call.str("reduction", "none")
    read = op.GatherElements(dy, indices, axis=axis)
    if reduction == "add":
        return dy, None, read
    if reduction != "none":
        raise call.error(f"reduction {reduction!r} has no rule")
    zeros = op.zeros_like(updates)
    return op.ScatterElements(dy, indices, zeros, axis=axis), None, read


@vjp("ScatterND")
def scatter_nd(call: Call, dy: Tensor) -> Gradients:
    """As ScatterElements."""
    op, (_, indices, updates) = call.op, call.inputs
    reduction = call.str("reduction", "none")
    read = op.GatherND(dy, indices)
    if reduction == "add":
        return dy, None, read
    if reduction != "none":
        raise call.error(f"reduction {reduction!r} has no rule")
    return op.ScatterND(dy, indices, op.zeros_like(updates)), None, read


@vjp("Compress")
def compress(call: Call, dy: Tensor) -> Gradients:
    """The places whose condition holds, in order."""
    op, (x, condition) = call.op, call.inputs
    places = op.reshape(op.NonZero(condition), [-1])
    if "axis" not in call.node.attributes:
        flat = op.reshape(op.zeros_like(x), [-1])
        return op.reshape_like(op.ScatterND(flat, op.Unsqueeze(places, [1]), dy), x), None
    axis = call.int("axis") % x.rank
    perm = [axis, *(a for a in range(x.rank) if a != axis)]
    zeros = op.transpose(op.zeros_like(x), perm)
    written = op.ScatterND(zeros, op.Unsqueeze(places, [1]), op.transpose(dy, perm))
    return op.transpose(written, [*range(1, axis + 1), 0, *range(axis + 1, x.rank)]), None
