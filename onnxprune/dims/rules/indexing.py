"""Ops that pick by index, and ops that ask for sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.dims.axis import Axis, Dim, Sum, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes, specs
from onnxprune.dims.solver import split

specs({"ReverseSequence": "t! b! s*, * -> t! b! s*"})

MOST_RUNS = 256
"""A fixed list of indices is followed where it is made of at most this many contiguous runs."""


@axes("Gather")
def gather(node: Context) -> None:
    """Along one axis indices are picked; the others pass. A fixed list of runs makes the axis a sum of its runs."""
    x = node.x(0)
    k = node.attr("axis", 0) % len(x)
    picked = _runs(node, x[k])
    if picked is None:
        node.freeze(x[k], "Gather picks from it")
        picked = tuple(node.x(1))
    else:
        node.follows(1, [x[k]], "index")
    node.set_out((*x[:k], *picked, *x[k + 1 :]))


def _runs(node: Context, axis: Axis) -> tuple[Axis, ...] | None:
    given, shape = node.numbers("indices", 1), node.shape(1)
    if given is None or len(given) < 2 or len(given) != max(shape):
        return None
    n = size(axis)
    indices = np.array(given) % n
    if len(np.unique(indices)) != len(indices):
        return None
    runs = np.split(indices, np.flatnonzero(np.diff(indices) != 1) + 1)
    if len(runs) > MOST_RUNS:
        return None
    edges = sorted({0, n, *(int(run[0]) for run in runs), *(int(run[-1]) + 1 for run in runs)})
    parts = dict(zip(edges, split(axis, list(np.diff(edges))), strict=False))
    picked: list[Axis] = []
    for run in runs:
        picked += [parts[edge] for edge in edges[:-1] if run[0] <= edge <= run[-1]]
    return tuple(Dim(1) if n == 1 else Sum(tuple(picked)) for n in shape)


@axes("GatherND")
def gather_nd(node: Context) -> None:
    """The first axes are indexed; those after them pass."""
    _indexed(node, node.attr("batch_dims", 0) + node.shape(1)[-1], node.out())


@axes("ScatterND")
def scatter_nd(node: Context) -> None:
    """The first axes are indexed; those after them are the updates' too."""
    _indexed(node, node.shape(1)[-1], node.x(2))
    node.set_out(node.x(0))


def _indexed(node: Context, depth: int, slices: Sequence[Axis]) -> None:
    """The first `depth` axes of the data are indexed; the others are the last ones of the slices."""
    x, indices = node.x(0), node.x(1)
    for axis in (*x[:depth], *indices, *slices[: len(indices) - 1]):
        node.freeze(axis)
    for axis, other in zip(x[depth:], slices[len(indices) - 1 :], strict=True):
        node.unify(axis, other)


@axes("GatherElements", "ScatterElements", "Scatter")
def elements(node: Context) -> None:
    """Indices are positions along one axis; the others are one in all that take part, where all of them is read."""
    x = node.x(0)
    k = node.attr("axis", 0) % len(x)
    for i in range(1, node.input_count):
        for j, (axis, other) in enumerate(zip(x, node.x(i), strict=True)):
            if j != k and size(axis) == size(other):
                node.unify(axis, other)
            else:
                node.freeze(axis)
                node.freeze(other)
    node.set_out(node.x(1) if node.op == "GatherElements" else x)


@axes("ArgMax", "ArgMin", "TopK")
def pick(node: Context) -> None:
    """Picks from the axis by value, and gives positions."""
    x = node.x(0)
    k = node.attr("axis", -1 if node.op == "TopK" else 0) % len(x)
    node.freeze(x[k])
    for i in range(node.output_count):
        shape = node.out_shape(i)
        picked = [node.frozen_axis(shape[k])] if len(shape) == len(x) else []
        node.set_out((*x[:k], *picked, *x[k + 1 :]), i)


@axes("CumSum", "CumProd")
def cumulate(node: Context) -> None:
    """Positions along the axis matter."""
    x, axis = node.x(0), node.numbers("axis", 1)
    for each in x if axis is None else (x[axis[0]],):
        node.freeze(each)
    node.set_out(x)


@axes("Shape")
def shape(node: Context) -> None:
    """Keeps answering the original sizes (see `carriers.PinnedShape`)."""
    node.pin()


@axes("ConstantOfShape")
def constant_of_shape(node: Context) -> None:
    """As large as it is asked to be."""
    node.follows(0, node.out())
