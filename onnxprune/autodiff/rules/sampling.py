"""Reading an image between its pixels (GridSample).

Along each axis the grid's coordinate u, in [-1, 1], is a position p in pixels; interpolation reads
the pixels around it with weights that are polynomials of f = p - floor(p): two with 1 - f and f
(linear), four with those of cubic convolution (Keys 1981, a = -3/4), one with 1 (nearest). So with the
neighbours c of p in all axes,

    y = sum_c w_c x[c]      dx[c] += w_c dy      dw_c = sum_channels dy x[c]

and the gradient of the grid is that of the weights, times pixels per unit of u. Padding `border`
holds p (cubic: the neighbours) at the edge, `reflection` folds it back, and `zeros` drops neighbours
outside.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp


@dataclass(frozen=True)
class _Axis:
    """Reading along one axis: of each neighbour the index, the weight, its slope, and if it counts."""

    size: Tensor
    index: list[Tensor]
    weight: list[Tensor]
    change: list[Tensor]
    inside: list[Tensor]
    slope: Tensor
    """Pixels per unit of the grid's coordinate, zero where the position is held."""


_OLD_NAMES = {"bilinear": "linear", "bicubic": "cubic"}
_A = -0.75
_WEIGHTS: dict[str, dict[int, Sequence[float]]] = {
    "nearest": {0: (1.0,)},
    "linear": {0: (1.0, -1.0), 1: (0.0, 1.0)},
    "cubic": {
        -1: (0.0, _A, -2 * _A, _A),
        0: (1.0, 0.0, -_A - 3, _A + 2),
        1: (0.0, -_A, 2 * _A + 3, -_A - 2),
        2: (0.0, 0.0, _A, -_A),
    },
}
"""By mode, the neighbours, counted from floor(p), and their weights: coefficients of 1, f, f^2, f^3."""


def _axis(call: Call, axis: int, mode: str) -> _Axis:
    op, (x, grid) = call.op, call.inputs
    size = op.Gather(op.shape_of(x), op.constant(np.array(2 + axis)))
    length = op.cast(size, x.dtype)
    u = op.Gather(grid, op.constant(np.array(grid.shape[-1] - 1 - axis)), axis=-1)
    aligned = bool(call.int("align_corners"))
    slope = (length - 1.0) * 0.5 if aligned else length * 0.5
    position = (u + 1.0) * slope if aligned else (u + 1.0) * slope - 0.5
    slope = op.Expand(slope, op.Shape(u))
    low, span = (0.0, length - 1.0) if aligned else (-0.5, length)
    padding = call.str("padding_mode", "zeros")
    if padding == "reflection":
        position, turned = _folded(op, position, low, span)
        slope = slope * turned
    if padding != "zeros" and mode != "cubic":
        held = op.Min(op.Max(position, 0.0), length - 1.0)
        slope = op.where(op.Equal(held, position), slope, 0.0)
        position = held
    first = op.Round(position) if mode == "nearest" else op.Floor(position)
    share = position - first
    places = [first + float(step) for step in _WEIGHTS[mode]]
    read = [_folded(op, p, low, span)[0] for p in places] if padding == "reflection" else places
    held_places = [op.Min(op.Max(place, 0.0), length - 1.0) for place in read]
    ones = op.Expand(op.constant(np.ones(()), x.dtype), op.Shape(u))
    inside = [
        op.cast(op.Equal(place, held), x.dtype) if padding == "zeros" else ones
        for place, held in zip(places, held_places, strict=True)
    ]
    return _Axis(
        size,
        [op.Cast(place, to=7) for place in held_places],
        [ones * _polynomial(share, c) for c in _WEIGHTS[mode].values()],
        [ones * _polynomial(share, _derivative(c)) for c in _WEIGHTS[mode].values()],
        inside,
        slope,
    )


def _folded(op: Ops, position: Tensor, low: float, span: Tensor) -> tuple[Tensor, Tensor]:
    """A position reflected at both ends until it is between them, and the sign of its slope then."""
    away = op.Abs(position - low)
    turns = op.Floor(away / span)
    rest, odd = away - turns * span, turns - 2.0 * op.Floor(turns * 0.5)
    return rest + odd * (span - 2.0 * rest) + low, op.Sign(position - low) * (1.0 - 2.0 * odd)


def _polynomial(f: Tensor, coefficients: Sequence[float]) -> Tensor:
    value = f * 0.0 + coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        value = value * f + coefficient
    return value


def _derivative(coefficients: Sequence[float]) -> Sequence[float]:
    return [k * c for k, c in enumerate(coefficients)][1:] or [0.0]


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
    """Any number of spatial axes."""
    op, (x, grid) = call.op, call.inputs
    mode = call.str("mode", "linear")
    mode, rank = _OLD_NAMES.get(mode, mode), x.rank - 2
    axes = [_axis(call, axis, mode) for axis in range(rank)]
    sizes = [axis.size for axis in axes]
    pixels = op.Transpose(op.reshape_before(x, [0, 0, -1], x, x.rank), perm=[0, 2, 1])
    dy_rows = op.Transpose(op.Reshape(dy, [0, 0, -1]), perm=[0, 2, 1])  # N x P x C
    zeros = op.zeros_like(x)
    dx = op.Transpose(op.Reshape(zeros, [0, 0, -1]), perm=[0, 2, 1])
    d_weights: dict[tuple[int, ...], Tensor] = {}
    for corner in itertools.product(range(len(_WEIGHTS[mode])), repeat=rank):
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
    if mode == "nearest" or not call.wanted[1]:
        return dx, None
    parts = []
    for place in range(rank):  # the grid's last axis counts from the last spatial axis
        axis = rank - 1 - place
        total: Tensor | None = None
        for corner, d_weight in d_weights.items():
            factors = [
                axes[a].change[c] if a == axis else axes[a].weight[c] for a, c in enumerate(corner)
            ]
            term = d_weight * op.Flatten(_product(op, factors), axis=1)
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
