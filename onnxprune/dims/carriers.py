"""Integers in a graph that are sizes of axes, or indices into them, and so must follow when the axes shrink.

A rule states them while tracing; `follow.py` gives each its new value. Runtime shape arithmetic needs no rules of its
own: every `Shape` keeps answering the *original* sizes (see `PinnedShape`), and every consumer of sizes is given the
new ones, so numbers computed from sizes (the 1/sqrt(d) of attention) stay what they were.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Keep, keep_mask, size

__all__ = ["Carrier", "Default", "Kind", "Numbers", "PinnedShape", "changes", "renumbered"]

Kind = Literal["size", "edge", "index"]


@dataclass(frozen=True, eq=False)
class Numbers:
    """Integers of a node; element k belongs to `axes[k]` (None: to nothing that can change).

    Attributes:
        node: The node that reads them.
        place: The index of the input, or the name of the attribute. One that is not there is made.
        axes: The axes; a single one belongs to all elements.
        kind: Sizes of the axes; bounds on them (an edge counts the indices before it); or indices, which are dropped
            where theirs goes.
    """

    node: ir.Node
    place: int | str
    axes: tuple[Axis | None, ...]
    kind: Kind = "size"


@dataclass(frozen=True, eq=False)
class Default:
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


Carrier = Numbers | Default | PinnedShape


def changes(axes: Iterable[Axis | None], keep: Keep) -> bool:
    """Whether any of the axes loses an index."""
    return any(axis is not None and not keep_mask(axis, keep).all() for axis in axes)


def renumbered(
    kind: Kind, axes: Sequence[Axis | None], old: Sequence[int], keep: Keep
) -> list[int]:
    """What the integers become."""
    if kind != "index":
        rule = new_size if kind == "size" else new_edge
        return [rule(axis, int(n), keep) for axis, n in zip(axes, old, strict=True)]
    assert axes[0] is not None
    mask = keep_mask(axes[0], keep)
    before = np.cumsum(mask) - 1
    return [int(before[n]) for n in old if mask[n]]


def new_size(axis: Axis | None, old: int, keep: Keep) -> int:
    """What an element that was `old`, a multiple of the size of `axis`, becomes."""
    if axis is None or old <= 0 or old % size(axis):
        return old
    return old // size(axis) * int(keep_mask(axis, keep).sum())


def new_edge(axis: Axis | None, old: int, keep: Keep) -> int:
    """Where a bound goes: as many indices before it as remain of those that were."""
    if axis is None or not changes([axis], keep):
        return old
    mask = keep_mask(axis, keep)
    n = len(mask)
    start = min(max(old + n if old < 0 else old, 0), n)
    return int(np.iinfo(np.int32).max) if old > n else int(mask[:start].sum())
