"""Reading and writing at computed positions: a gather's gradient is a scatter, and the reverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class _Places:
    """Where a scatter writes: reading there, and writing there once more.

    Attributes:
        read: What a tensor of the output's shape holds at each update's place.
        write: Updates written into a tensor, with a reduction.
    """

    read: Callable[[Tensor], Tensor]
    write: Callable[[Tensor, Tensor, str], Tensor]


@vjp("ScatterElements", "Scatter")
def scatter_elements(call: Call, dy: Tensor) -> Gradients:
    """See `_scatter`."""
    op, indices, axis = call.op, call.inputs[1], call.int("axis")
    return _scatter(
        call,
        dy,
        _Places(
            lambda x: op.GatherElements(x, indices, axis=axis),
            lambda x, updates, how: op.ScatterElements(
                x, indices, updates, axis=axis, reduction=how
            ),
        ),
    )


@vjp("ScatterND")
def scatter_nd(call: Call, dy: Tensor) -> Gradients:
    """See `_scatter`."""
    op, indices = call.op, call.inputs[1]
    return _scatter(
        call,
        dy,
        _Places(
            lambda x: op.GatherND(x, indices),
            lambda x, updates, how: op.ScatterND(x, indices, updates, reduction=how),
        ),
    )


def _scatter(call: Call, dy: Tensor, at: _Places) -> Gradients:
    """What was there and what is written, reduced: as the reduction over both.

    none      what was overwritten gets nothing; what was written reads its place
    add       both get dy
    mul       both get dy times the product of the other factors
    max, min  the winner gets dy; several share it
    """
    op, x, updates = call.op, call.x, call.inputs[2]
    reduction = call.str("reduction", "none")
    if reduction == "none":
        return at.write(dy, op.zeros_like(updates), "none"), None, at.read(dy)
    if reduction == "add":
        return dy, None, at.read(dy)
    if reduction == "mul":
        product, zeros = (
            at.write(f(x), f(updates), how) for f, how in ((_filled, "mul"), (_is_zero, "add"))
        )
        dx = dy * _other_factors(x, product, zeros)
        return dx, None, at.read(dy) * _other_factors(updates, at.read(product), at.read(zeros))
    won, wins = (
        op.cast(op.Equal(a, y), dy.dtype) for a, y in ((x, call.y), (updates, at.read(call.y)))
    )
    share = dy / op.Max(at.write(won, wins, "add"), 1.0)
    return share * won, None, at.read(share) * wins


def _is_zero(x: Tensor) -> Tensor:
    return x.ops.cast(x.ops.Equal(x, 0.0), x.dtype)


def _filled(x: Tensor) -> Tensor:
    """Ones for the zeros."""
    return x.ops.where(x.ops.Equal(x, 0.0), x.ops.constant(np.ones(()), x.dtype), x)


def _other_factors(x: Tensor, product: Tensor, zeros: Tensor) -> Tensor:
    """The product without x, of factors whose product without zeros and number of zeros are known."""
    others = zeros - _is_zero(x)
    return x.ops.where(x.ops.Equal(others, 0.0), product / _filled(x), 0.0)


@vjp("TensorScatter")
def tensor_scatter(call: Call, dy: Tensor) -> Gradients:
    """What was overwritten gets nothing; the update reads its places, from each sample's index on."""
    op, (cache, update) = call.op, call.inputs[:2]
    axis = call.int("axis", -2) % cache.rank
    indices = tuple(call.inputs[2:3])
    attributes = {"axis": axis, "mode": call.str("mode", "linear")}
    d_cache = op.TensorScatter(dy, op.zeros_like(update), *indices, **attributes)
    steps = op.Gather(op.shape_of(update), op.constant(np.array(axis)))
    places = op.Range(op.constant(np.array(0)), steps, op.constant(np.array(1)))
    if indices and indices[0] is not None:  # batch x steps
        places = op.Unsqueeze(indices[0], [1]) + places
    if attributes["mode"] == "circular":
        places = op.Mod(places, op.Gather(op.shape_of(cache), op.constant(np.array(axis))))
    batch = op.Gather(op.shape_of(update), [0])
    one = op.constant(np.array([1]))
    shape = [batch if k == 0 else one for k in range(cache.rank)]
    shape[axis] = op.Unsqueeze(steps, [0])
    whole = op.Expand(places, op.Concat(batch, op.Unsqueeze(steps, [0]), axis=0))
    at = op.Expand(op.Reshape(whole, op.Concat(*shape, axis=0)), op.shape_of(update))
    return (d_cache, op.GatherElements(dy, at, axis=axis), None)[: len(call.inputs)]


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


@vjp("Unique")
def unique(call: Call, dy: Tensor, *_: Tensor | None) -> Gradients:
    """To the first of equals: where the second output says."""
    op, x, node = call.op, call.x, call.node
    if len(node.outputs) < 2 or not node.outputs[1].name:
        node.resize_outputs(max(len(node.outputs), 2))
        node.outputs[1].name = f"{call.y.value.name}.indices"
        node.outputs[1].type = ir.TensorType(ir.DataType.INT64)
    places = op.Unsqueeze(Tensor(node.outputs[1], op), [1])
    if "axis" not in node.attributes:
        flat = op.reshape(op.zeros_like(x), [-1])
        return (op.reshape_like(op.ScatterND(flat, places, dy), x),)
    axis = call.int("axis") % x.rank
    swapped = [axis, *(a for a in range(x.rank) if a != axis)]
    back = sorted(range(x.rank), key=swapped.__getitem__)
    zeros = op.transpose(op.zeros_like(x), swapped)
    return (op.transpose(op.ScatterND(zeros, places, op.transpose(dy, swapped)), back),)
