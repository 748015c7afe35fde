"""Integers in a graph that are sizes of axes, or indices into them, and so must follow when the axes shrink.

A rule states them while tracing; `cut.py` asks each for its new value. Runtime shape arithmetic needs no rules of its
own: every `Shape` keeps answering the *original* sizes (see `PinnedShape`), and every consumer of sizes is given the
new ones, so numbers computed from sizes (the 1/sqrt(d) of attention) stay what they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Keep, keep_mask, size

__all__ = [
    "AttributeSizes",
    "AttributeValue",
    "Carrier",
    "InputIndices",
    "InputSizes",
    "PinnedShape",
]


@dataclass(frozen=True, eq=False)
class InputSizes:
    """Element k of the integer input is the size of `axes[k]` (None: of nothing that can change)."""

    node: ir.Node
    index: int
    axes: tuple[Axis | None, ...]


@dataclass(frozen=True, eq=False)
class InputIndices:
    """The elements of the integer input are positions on an axis: Gather's indices, Slice's starts and ends.

    `axes[k]` belongs to element k; a single axis belongs to all of them. As a bound (`edge`), a position counts the
    indices before it.
    """

    node: ir.Node
    index: int
    axes: tuple[Axis | None, ...]
    edge: bool = False


@dataclass(frozen=True, eq=False)
class AttributeSizes:
    """An attribute is the size of an axis, or a list of sizes; with `edge`, positions on the axes."""

    node: ir.Node
    name: str
    axes: tuple[Axis | None, ...]
    edge: bool = False


@dataclass(frozen=True, eq=False)
class AttributeValue:
    """An attribute whose default depends on the size of an axis is written out once that axis is cut."""

    node: ir.Node
    name: str
    value: float
    axis: Axis


@dataclass(frozen=True, eq=False)
class PinnedShape:
    """A Shape node: its output stays what it was although the axes of its input (none: of a weight) shrink."""

    node: ir.Node
    axes: tuple[Axis, ...]


Carrier = InputSizes | InputIndices | AttributeSizes | AttributeValue | PinnedShape


def new_size(axis: Axis | None, old: int, keep: Keep) -> int:
    """What an element that was `old`, a multiple of the size of `axis`, becomes."""
    if axis is None or old <= 0 or old % size(axis):
        return old
    return old // size(axis) * int(keep_mask(axis, keep).sum())


def new_edge(axis: Axis | None, old: int, keep: Keep) -> int:
    """Where a bound goes: as many indices before it as remain of those that were."""
    if axis is None:
        return old
    mask = keep_mask(axis, keep)
    if mask.all():
        return old
    n = len(mask)
    start = min(max(old + n if old < 0 else old, 0), n)
    if start == n:
        return int(np.iinfo(np.int32).max) if old > n else int(mask.sum())
    return int(mask[:start].sum())


def new_index(axis: Axis | None, old: int, keep: Keep) -> int:
    """Where an index goes that itself stays."""
    if axis is None:
        return old
    mask = keep_mask(axis, keep)
    return int(mask[: old % len(mask)].sum())


def size_changes(axis: Axis | None, keep: Keep) -> bool:
    """Whether any index of the axis goes."""
    return axis is not None and not bool(keep_mask(axis, keep).all())
