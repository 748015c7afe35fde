"""Ops that rearrange: the same indices in other axes."""

from __future__ import annotations

import numpy as np

from onnxprune.dims.axis import Axis, Dim, Product, Sum, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes, specs
from onnxprune.dims.solver import split, unify

specs(
    {
        "DepthToSpace": "mode=CRD: n (c k!) _* -> n c _* | n (k! c) _* -> n c _*",
        "SpaceToDepth": "n c _* -> n (k! c) _*",
        "Trilu": "s* m! n! -> s* m! n!",
    }
)


@axes("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Context) -> None:
    """Axes before and after fall into the smallest groups of equal size; in each, the products are one."""
    sides = (node.x(0), node.out())
    ends = [np.cumprod([size(axis) for axis in side]) for side in sides]
    if any(0 in end for end in ends):
        node.freeze_all(f"{node.op} of an empty tensor")
        return
    common = np.intersect1d(ends[0], ends[1])
    for k in range(len(common)):
        left, right = (
            Product(tuple(axis for axis, group in zip(side, groups, strict=True) if group == k))
            for side, groups in zip(
                sides, (np.searchsorted(common, end) for end in ends), strict=True
            )
        )
        node.unify(left, right)
    if node.op == "Reshape":
        node.follows(1, node.out())
        node.follows("shape", node.out())


@axes("Transpose")
def transpose(node: Context) -> None:
    """Axes in another order."""
    x = node.x(0)
    node.set_out(x[k] for k in node.attr("perm", range(len(x))[::-1]))


@axes("Concat")
def concat(node: Context) -> None:
    """Along one axis, the sum of the inputs'; along the others, all are one."""
    join(node, range(node.input_count), node.attr("axis", 1))


def join(node: Context, inputs: range, k: int) -> None:
    """The output is these inputs put together along axis k."""
    out, parts = node.out(), [node.x(i) for i in inputs]
    k %= len(out)
    for part in parts:
        for axis, other in zip(part[:k] + part[k + 1 :], out[:k] + out[k + 1 :], strict=True):
            node.unify(axis, other)
    node.unify(out[k], Sum(tuple(part[k] for part in parts)))


@axes("Split")
def split_(node: Context) -> None:
    """The axis is the sum of the outputs'."""
    x = node.x(0)
    k = node.attr("axis", 0) % len(x)
    parts = split(x[k], [node.out_shape(i)[k] for i in range(node.output_count)])
    for i, part in enumerate(parts):
        node.set_out((*x[:k], part, *x[k + 1 :]), i)
    attribute = node.opset < 13 or "split" in node.node.attributes
    node.follows("split" if attribute else 1, parts, missing=True)


@axes("Slice")
def slice_(node: Context) -> None:
    """The axis is what is before, what is taken, and what is after; of `(n k)` a step of k takes n."""
    x, shape = node.x(0), node.out_shape()
    bounds = _bounds(node)
    if bounds is None:
        node.freeze_all("Slice along axes that are not fixed")
        return
    out = list(x)
    for k, where in bounds.items():
        taken = None if where is None else _taken(x[k], *where)
        if taken is None or size(taken) != shape[k]:
            node.freeze(x[k], "Slice cuts through it" if where else "Slice has bounds that vary")
            taken = node.frozen_axis(shape[k])
        out[k] = taken
    node.set_out(out)
    ends = [x[k] for k in bounds]
    # Where k-th indices are taken, the start is a position inside the k and stays.
    starts = [None if where and where[2] > 1 else x[k] for k, where in bounds.items()]
    for i, name, cut in ((1, "starts", starts), (2, "ends", ends)):
        node.follows(i, cut, "edge")
        node.follows(name, cut, "edge")


def _bounds(node: Context) -> dict[int, tuple[int, int, int] | None] | None:
    """Start, end and step by axis, None where they vary; None where even the axes do."""
    over = node.numbers("axes", 3, range(node.rank()))
    steps = node.numbers("steps", 4, [1] * node.rank())
    if over is None or steps is None:
        return None
    axes = [k % node.rank() for k in over]
    found: dict[int, tuple[int, int, int] | None] = dict.fromkeys(axes)
    starts, ends = node.elements("starts", 1) or (), node.elements("ends", 2) or ()
    for k, start, end, step in zip(axes, starts, ends, steps, strict=False):
        if start is not None and end is not None:
            found[k] = (start, end, step)
    return found


def _taken(axis: Axis, start: int, end: int, step: int) -> Axis | None:
    n = size(axis)
    if step > 1 and start < 0:
        return None
    start, end = (min(max(each + n if each < 0 else each, 0), n) for each in (start, end))
    if step == 1 and end > start:
        sizes = [start, end - start, n - end]
        parts = split(axis, [each for each in sizes if each])
        return parts[1 if start else 0]
    if step > 1 and n % step == 0 and start < step and end > n - step + start:
        outer = Dim(n // step)
        unify(axis, Product((outer, Dim(step, "Slice takes every k-th"))))
        return outer
    return None


@axes("Pad")
def pad(node: Context) -> None:
    """Constant padding makes the axis a sum, with new indices before and after; what is not padded passes."""
    constant = node.attr("mode", "constant") == "constant"
    amounts = _amounts(node)
    ends: dict[int, list[Dim]] = {}
    for k, (axis, padded) in enumerate(zip(node.x(0), node.out(), strict=True)):
        known = [n for n in amounts.get(k, (0, 0)) if n is not None]
        if len(known) == 2 and min(known) >= 0 and (constant or not any(known)):
            ends[k] = [Dim(n) for n in known]
            node.unify(padded, Sum((ends[k][0], axis, ends[k][1])))
        else:
            node.freeze(axis)
            node.freeze(padded)
    pieces = [ends[k][side] if k in ends else None for side in (0, 1) for k in amounts]
    node.follows(1, pieces)
    node.follows("pads", pieces)


def _amounts(node: Context) -> dict[int, tuple[int | None, int | None]]:
    """What is added before and after, by axis; None where it varies."""
    flat, over = node.elements("pads", 1), node.numbers("axes", 3, range(node.rank()))
    if flat is None or over is None:
        return dict.fromkeys(range(node.rank()), (None, None))
    sides = zip(flat[: len(over)], flat[len(over) :], strict=True)
    return dict(zip((k % node.rank() for k in over), sides, strict=True))


@axes("Expand")
def expand(node: Context) -> None:
    """Broadcasts to a shape; an axis that grows from 1 is new."""
    node.broadcast([0])
    node.follows(1, node.out())


@axes("Tile")
def tile(node: Context) -> None:
    """A repeated axis is `repeats x n`."""
    x, out = node.x(0), node.out()
    for axis, other in zip(x, out, strict=True):
        repeats = size(other) // max(size(axis), 1)
        node.unify(other, Product((node.frozen_axis(repeats, "Tile repeats it"), axis)))
