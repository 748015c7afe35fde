"""Ops that rearrange: the same indices in other axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.dims.axis import Axis, Dim, Product, Sum, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes
from onnxprune.dims.solver import split, unify


@axes("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(node: Context) -> None:
    """Axes before and after fall into the smallest groups of equal size; in each, the products are one."""
    before, after = list(node.x(0)), list(node.out())
    i = j = 0
    while i < len(before) or j < len(after):
        left, right = before[i : i + 1], after[j : j + 1]
        i, j = i + 1, j + 1
        while size(Product(tuple(left))) != size(Product(tuple(right))):
            if size(Product(tuple(left))) < size(Product(tuple(right))) and i < len(before):
                left.append(before[i])
                i += 1
            elif j < len(after):
                right.append(after[j])
                j += 1
            else:
                node.freeze_all(f"{node.op} of an empty tensor")
                return
        node.unify(Product(tuple(left)), Product(tuple(right)))
    if node.op == "Reshape":
        node.sizes(1, node.out())
        node.attr_follows("shape", node.out())


@axes("Transpose")
def transpose(node: Context) -> None:
    """Axes in another order."""
    x = node.x(0)
    node.set_out(x[k] for k in node.attr("perm", range(len(x))[::-1]))


@axes("Concat")
def concat(node: Context) -> None:
    """Along one axis, the sum of the inputs'; along the others, all are one."""
    out, parts = node.out(), [node.x(i) for i in range(node.input_count)]
    k = node.attr("axis", 1) % len(out)
    for part in parts:
        for j, axis in enumerate(part):
            if j != k:
                node.unify(axis, out[j])
    node.unify(out[k], Sum(tuple(part[k] for part in parts)))


@axes("Split")
def split_(node: Context) -> None:
    """The axis is the sum of the outputs'."""
    x = node.x(0)
    k = node.attr("axis", 0) % len(x)
    parts = split(x[k], [node.out_shape(i)[k] for i in range(node.output_count)])
    for i, part in enumerate(parts):
        node.set_out((*x[:k], part, *x[k + 1 :]), i)
    node.split_follows(parts)


@axes("Slice")
def slice_(node: Context) -> None:
    """The axis is what is before, what is taken, and what is after; a step of k takes every k-th: `(n k)` becomes n."""
    x = node.x(0)
    if node.input_count > 1:
        starts, ends, steps = node.const(1), node.const(2), node.const(4)
        over = node.const(3) if node.has(3) else np.arange(node.shape(1)[0])
        fixed = starts is not None and ends is not None and (steps is not None or not node.has(4))
    else:
        starts, ends, steps = np.array(node.attr("starts")), np.array(node.attr("ends")), None
        over, fixed = np.array(node.attr("axes", range(len(starts)))), True
    if over is None:
        node.freeze_all("Slice along axes that are not fixed")
        return
    out, bounds = list(x), list[Axis | None]()
    for j, k in enumerate(int(each) % len(x) for each in over):
        step = 1 if steps is None else int(steps[j])
        taken = _taken(x[k], int(starts[j]), int(ends[j]), step) if fixed else None
        if taken is None or size(taken) != node.out_shape()[k]:
            node.freeze(x[k], "Slice cuts through it" + ("" if fixed else " at bounds that are not fixed"))
            taken = node.frozen_axis(node.out_shape()[k])
        bounds.append(x[k])
        out[k] = taken
    node.set_out(out)
    if node.input_count > 1:
        node.indices(1, bounds, edge=True)
        node.indices(2, bounds, edge=True)
    else:
        node.attr_follows("starts", bounds, edge=True)
        node.attr_follows("ends", bounds, edge=True)


def _taken(axis: Axis, start: int, end: int, step: int) -> Axis | None:
    n = size(axis)
    start, end = (min(max(each + n if each < 0 else each, 0), n) for each in (start, end))
    if step == 1:
        sizes = [start, end - start, n - end]
        if end <= start:
            return None
        parts = iter(split(axis, [each for each in sizes if each]))
        return [next(parts) if each else None for each in sizes][1]
    if step > 1 and n % step == 0 and start < step and end > n - step + start:
        outer, inner = Dim(n // step), Dim(step, "Slice takes every k-th")
        unify(axis, Product((outer, inner)))
        return outer
    return None


@axes("Pad")
def pad(node: Context) -> None:
    """Constant padding makes the axis a sum with new indices before and after."""
    x, out = node.x(0), node.out()
    rank = len(x)
    over = node.const(3) if node.has(3) else np.arange(rank)
    amounts = node.const(1) if node.has(1) else np.array(node.attr("pads", node.attr("paddings", [])))
    which = None if over is None else [int(k) % rank for k in over]
    fixed = amounts is not None and which is not None and node.attr("mode", "constant") == "constant"
    pieces: list[Axis | None] = []
    for k in range(rank):
        if size(x[k]) == size(out[k]) and not (fixed and which and k in which and amounts[which.index(k)]):
            node.unify(x[k], out[k])
        elif not fixed or min(_ends(amounts, which, k)) < 0:
            node.freeze(x[k])
            node.freeze(out[k])
    if fixed and which:
        ends: dict[int, tuple[Dim, Dim]] = {}
        for k in which:
            before, after = _ends(amounts, which, k)
            if min(before, after) >= 0 and (before or after):
                ends[k] = (Dim(before), Dim(after))
                node.unify(out[k], Sum((ends[k][0], x[k], ends[k][1])))
        pieces = [ends[k][side] if k in ends else None for side in (0, 1) for k in which]
        node.sizes(1, pieces)
        node.attr_follows("pads", pieces)


def _ends(amounts: np.ndarray | None, which: Sequence[int] | None, k: int) -> tuple[int, int]:
    if amounts is None or which is None or k not in which:
        return (0, 0)
    j = which.index(k)
    return int(amounts[j]), int(amounts[len(which) + j])


@axes("Expand")
def expand(node: Context) -> None:
    """Broadcasts to a shape; an axis that grows from 1 is new."""
    node.broadcast([0])
    node.sizes(1, node.out())


@axes("Tile")
def tile(node: Context) -> None:
    """A repeated axis is `repeats x n`."""
    x, out = node.x(0), node.out()
    for axis, other in zip(x, out, strict=True):
        repeats = size(other) // max(size(axis), 1)
        node.unify(other, Product((node.frozen_axis(repeats, "Tile repeats it"), axis)))


@axes("DepthToSpace")
def depth_to_space(node: Context) -> None:
    """Channels are `b b c` (DCR) or `c b b` (CRD)."""
    x, out = node.x(0), node.out()
    block = node.frozen_axis(node.attr("blocksize") ** 2, "DepthToSpace moves blocks of it")
    crd = node.attr("mode", "DCR") == "CRD"
    node.unify(x[1], Product((out[1], block) if crd else (block, out[1])))
    _spatial(node, x, out)


@axes("SpaceToDepth")
def space_to_depth(node: Context) -> None:
    """Channels become `b b c`."""
    x, out = node.x(0), node.out()
    block = node.frozen_axis(node.attr("blocksize") ** 2, "SpaceToDepth moves blocks of it")
    node.unify(out[1], Product((block, x[1])))
    _spatial(node, x, out)


def _spatial(node: Context, x: Sequence[Axis], out: Sequence[Axis]) -> None:
    node.unify(x[0], out[0])
    for axis in (*x[2:], *out[2:]):
        node.freeze(axis)


@axes("Trilu")
def trilu(node: Context) -> None:
    """Works on the positions of the last two axes."""
    x = node.x(0)
    for axis in x[-2:]:
        node.freeze(axis)
    node.set_out(x)
