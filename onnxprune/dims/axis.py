"""The algebra of axes: what one axis of one tensor is made of.

A *Dim* is a set of n indices that live and die together across the whole model. An *axis* is

1. a Dim,
2. a `Product` of axes, outermost first: what a Reshape merges, `index = outer * size(inner) + inner`, or
3. a `Sum` of axes: what a Concat joins, `index = offset + index in the part`.

Dims are variables of a unification problem (`solver.py`): a Dim may be *bound* to another axis, and from then on is
that axis. So `resolve` before looking. Factors of size 1 and parts of size 0 drop out.

The vocabulary follows DepGraph (Fang et al., CVPR 2023), whose *group* is a Dim here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

__all__ = [
    "Axis",
    "Dim",
    "Keep",
    "Product",
    "Sum",
    "keep_mask",
    "leaves",
    "positions",
    "resolve",
    "size",
]


class Dim:
    """n indices that live and die together.

    Attributes:
        size: The number of indices.
        frozen: Why no index may be removed, or None.
        inexact: Why removing indices is not the same as zeroing them (a normalisation or mean runs over them), or None.
        bound: The axis that this Dim turned out to be, or None while it is its own.
    """

    __slots__ = ("bound", "frozen", "inexact", "size")

    def __init__(self, size: int, frozen: str | None = None) -> None:
        self.size = int(size)
        self.frozen = "it has a single index" if self.size <= 1 and frozen is None else frozen
        self.inexact: str | None = None
        self.bound: Axis | None = None

    def __repr__(self) -> str:
        return f"Dim({self.size}{', frozen' if self.frozen else ''})"


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """Axes merged into one, outermost first."""

    factors: tuple[Axis, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Sum:
    """Axes joined end to end."""

    parts: tuple[Axis, ...]


Axis = Dim | Product | Sum
Keep = Mapping[Dim, np.ndarray]
"""Which indices stay: a boolean array of shape (dim.size,) for every Dim that loses some."""


def size(axis: Axis, kept: Mapping[Dim, int] | None = None) -> int:
    """The number of indices of an axis, where `kept` says how many some Dims keep."""
    axis = resolve(axis) if kept else axis  # a bound Dim has the size of what it is bound to
    if isinstance(axis, Dim):
        return kept.get(axis, axis.size) if kept else axis.size
    sizes = [size(child, kept) for child in children(axis)]
    return math.prod(sizes) if isinstance(axis, Product) else sum(sizes)


def resolve(axis: Axis) -> Axis:
    """The axis with bindings followed, nested products and sums flattened, units dropped."""
    followed: list[Dim] = []
    while isinstance(axis, Dim) and axis.bound is not None:
        followed.append(axis)
        axis = axis.bound
    found = axis if isinstance(axis, Dim) else _flat(axis)
    for dim in followed:
        dim.bound = found  # less far to go next time
    return found


def _flat(axis: Product | Sum) -> Axis:
    kind, unit = type(axis), int(isinstance(axis, Product))
    flat: list[Axis] = []
    for child in map(resolve, children(axis)):
        if isinstance(child, kind):
            flat += children(child)
        elif not isinstance(child, Dim) or child.size != unit:
            flat.append(child)
    if len(flat) == 1:
        return flat[0]
    return kind(tuple(flat)) if flat else Dim(unit)


def children(axis: Axis) -> Sequence[Axis]:
    """The factors or parts of an axis; none for a Dim."""
    if isinstance(axis, Dim):
        return ()
    return axis.factors if isinstance(axis, Product) else axis.parts


def leaves(axis: Axis) -> Iterator[Dim]:
    """The unbound Dims of an axis, left to right, each as often as it occurs."""
    pending = [resolve(axis)]
    while pending:
        axis = pending.pop()
        if isinstance(axis, Dim):
            yield axis
        pending += reversed(children(axis))


def keep_mask(axis: Axis, keep: Keep) -> np.ndarray:
    """Which indices of an axis stay.

    Args:
        axis: Any axis.
        keep: A boolean array of shape (dim.size,) for every Dim that loses indices.

    Returns:
        A boolean array of shape (size(axis),): the outer *and* of a product, the concatenation of a sum.
    """
    axis = resolve(axis)
    if isinstance(axis, Dim):
        mask = keep.get(axis)
        return np.ones(axis.size, bool) if mask is None else mask
    masks = [keep_mask(child, keep) for child in children(axis)]
    if isinstance(axis, Sum):
        return np.concatenate(masks)
    product = np.ones(1, bool)
    for mask in masks:
        product = np.logical_and.outer(product, mask).reshape(-1)
    return product


def positions(axis: Axis, dim: Dim) -> np.ndarray:
    """Which index of `dim` each position of an axis belongs to.

    Returns:
        An int array of shape (k, size(axis)), -1 where a position does not depend on `dim`; k is the largest
        number of times that the Dim occurs along one path (1 but for an axis such as `d x d`).
    """
    axis = resolve(axis)
    if isinstance(axis, Dim):
        own = np.arange(axis.size) if axis is dim else np.full(axis.size, -1)
        return own.reshape(1, -1)
    tables = [positions(child, dim) for child in children(axis)]
    if isinstance(axis, Sum):
        rows = max(len(table) for table in tables)
        return np.concatenate(
            [np.pad(t, ((0, rows - len(t)), (0, 0)), constant_values=-1) for t in tables], axis=1
        )
    total = size(axis)
    outer, inner, found = 1, total, []
    for child, table in zip(children(axis), tables, strict=True):
        inner //= size(child)
        if (table >= 0).any():
            found += [np.tile(np.repeat(row, inner), outer) for row in table]
        outer *= size(child)
    return np.stack(found) if found else np.full((1, total), -1)
