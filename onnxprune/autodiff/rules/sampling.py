"""Reading an image between its pixels (GridSample).

Along each axis the grid's coordinate u, in [-1, 1], is a position p in pixels; linear interpolation
reads the two pixels around it with weights 1 - f and f, f = p - floor(p). So with the corners c of
the cell around p,

    y = sum_c w_c x[c]      dx[c] += w_c dy      dw_c = sum_channels dy x[c]

and the gradient of the grid is that of the weights, times pixels per unit of u. Padding `border`
holds p at the edge, `reflection` folds it back, and `zeros` drops corners outside.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp


@dataclass(frozen=True)
class _Axis:
    """Reading along one axis: of each neighbour the index, the weight and whether it counts."""

    size: Tensor
    index: list[Tensor]
    weight: list[Tensor]
    inside: list[Tensor]
    slope: Tensor
    """Pixels per unit of the grid's coordinate, zero where the position is held."""


def _axis(call: Call, axis: int, nearest: bool) -> _Axis:
    op, (x, grid) = call.op, call.inputs
    size = op.Gather(op.shape_of(x), op.constant(np.array(2 + axis)))
    length = op.cast(size, x.dtype)
    u = op.Gather(grid, op.constant(np.array(grid.shape[-1] - 1 - axis)), axis=-1)
    aligned = bool(call.int("align_corners"))
    slope = (length - 1.0) * 0.5 if aligned else length * 0.5
    position = (u + 1.0) * slope if aligned else (u + 1.0) * slope - 0.5
    low, span = (0.0, length - 1.0) if aligned else (-0.5, length)
    slope = op.Expand(slope, op.Shape(u))
    padding = call.str("padding_mode", "zeros")
    if padding == "reflection":
        away = op.Abs(position - low)
        turns = op.Floor(away / span)
        rest, odd = away - turns * span, turns - 2.0 * op.Floor(turns * 0.5)
        slope = slope * op.Sign(position - low) * (1.0 - 2.0 * odd)
        position = rest + odd * (span - 2.0 * rest) + low
    if padding != "zeros":
        held = op.Min(op.Max(position, 0.0), length - 1.0)
        slope = op.where(op.Equal(held, position), slope, 0.0)
        position = held
    first = op.Round(position) if nearest else op.Floor(position)
    share = position - first
    ones = op.Expand(op.constant(np.ones(()), x.dtype), op.Shape(u))
    places = [first] if nearest else [first, first + 1.0]
    held_places = [op.Min(op.Max(place, 0.0), length - 1.0) for place in places]
    inside = [
        op.cast(op.Equal(place, held), x.dtype) if padding == "zeros" else ones
        for place, held in zip(places, held_places, strict=True)
    ]
    weight = [ones] if nearest else [1.0 - share, share]
    index = [op.Cast(place, to=7) for place in held_places]
    return _Axis(size, index, weight, inside, slope)


def _flat(op: Ops, indices: list[Tensor], sizes: list[Tensor]) -> Tensor:
    """Row-major position of a pixel."""
    flat = indices[0]
    for index, size in zip(indices[1:], sizes[1:], strict=True):
        flat = flat * size + index
    return flat


def _product(op: Ops, factors: list[Tensor]) -> Tensor:
    result = factors[0]
    for factor in factors[1:]:
        result = result * factor
    return result


@vjp("GridSample")
def grid_sample(call: Call, dy: Tensor) -> Gradients:
    """Modes linear (bilinear) and nearest, any number of spatial axes."""
    op, (x, grid), mode = call.op, call.inputs, call.str("mode", "linear")
    if mode not in {"linear", "bilinear", "nearest"}:
        raise call.error(f"mode {mode!r} has no rule")
    rank = x.rank - 2
    axes = [_axis(call, axis, mode == "nearest") for axis in range(rank)]
    sizes = [axis.size for axis in axes]
    pixels = op.Transpose(op.reshape_before(x, [0, 0, -1], x, x.rank), perm=[0, 2, 1])
    dy_rows = op.Transpose(op.Reshape(dy, [0, 0, -1]), perm=[0, 2, 1])  # N x P x C
    zeros = op.zeros_like(x)
    dx = op.Transpose(op.Reshape(zeros, [0, 0, -1]), perm=[0, 2, 1])
    d_weights: dict[tuple[int, ...], Tensor] = {}
    for corner in itertools.product((0, 1), repeat=rank) if mode != "nearest" else [(0,) * rank]:
        flat = _flat(op, [axis.index[c] for axis, c in zip(axes, corner, strict=True)], sizes)
        index = op.Unsqueeze(op.Flatten(flat, axis=1), [2])  # N x P x 1
        weight = _product(op, [axis.weight[c] for axis, c in zip(axes, corner, strict=True)])
        inside = _product(op, [axis.inside[c] for axis, c in zip(axes, corner, strict=True)])
        column = op.Unsqueeze(op.Flatten(weight * inside, axis=1), [2])
        spread = op.Expand(index, op.Shape(dy_rows))
        dx = op.ScatterElements(dx, spread, dy_rows * column, axis=1, reduction="add")
        read = op.GatherElements(pixels, spread, axis=1)
        d_weights[corner] = op.ReduceSum(dy_rows * read, [2], keepdims=0) * op.Flatten(
            inside, axis=1
        )
    dx = op.reshape_like(op.Transpose(dx, perm=[0, 2, 1]), x)
    if mode == "nearest":
        return dx, op.zeros_like(grid)
    parts = []
    for place in range(rank):  # the grid's last axis counts from the last spatial axis
        axis = rank - 1 - place
        total: Tensor | None = None
        for corner, d_weight in d_weights.items():
            others = [axes[a].weight[c] for a, c in enumerate(corner) if a != axis]
            factor = _product(op, others) if others else None
            term = d_weight if factor is None else d_weight * op.Flatten(factor, axis=1)
            term = term if corner[axis] else -term
            total = term if total is None else total + term
        assert total is not None
        slope = op.Flatten(axes[axis].slope, axis=1)
        parts.append(op.Unsqueeze(total * slope, [2]))
    return dx, op.reshape_like(op.Concat(*parts, axis=2), grid)


@vjp("AffineGrid")
def affine_grid(call: Call, dy: Tensor) -> Gradients:
    """A product of theta with the grid of the identity, which the op itself gives."""
    op, (theta, size) = call.op, call.inputs
    rank = theta.shape[1] or 0
    identity = op.constant(np.eye(rank, rank + 1)[None], theta.dtype)
    rest = op.Slice(size, [1], [2**31], [0])
    one = op.Concat(op.constant(np.array([1])), rest, axis=0)
    base = op.AffineGrid(identity, one, align_corners=call.int("align_corners"))
    points = op.reshape(base, [-1, rank])
    rows = op.Pad(points, [0, 0, 0, 1], 1.0)
    columns = op.Transpose(op.Reshape(dy, [0, -1, rank]), perm=[0, 2, 1])
    return op.MatMul(columns, rows), None
