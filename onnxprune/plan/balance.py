"""Widths at which time shrinks about as much as MACs do.

Half of every Dim is a quarter of each product, but half of what goes by memory: where many numbers are moved for few
MACs (depthwise convolutions, large maps) less time goes than MACs. So where a model's time would stay behind its MACs,
Dims trade a block of channels each: those whose channels take much time for their MACs keep a block less, and those
whose channels take little keep a block more. There are a few more MACs then than there were, and less time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from onnxprune.dims import Dim, Tracing
from onnxprune.plan.budget import macs_cost
from onnxprune.plan.effort import effort_cost

__all__ = ["balanced"]

ENOUGH = 1 / 0.9
"""The share of the time that may be left, over that of the MACs."""
DEAR = 4 / 3
"""The share of the time over that of the MACs from which on channels go; those stay that have less than the inverse."""
LESS, MORE = 0.9, 1.08
"""Times the MACs that there were: the least that some Dims may leave, and the most that there are in the end."""
FEWEST = 3
"""Blocks that a Dim gives one of; with fewer it would not be what was asked for."""


class _Move(NamedTuple):
    """A width that changes: what it does to the shares of time and MACs, and the MACs that are left then."""

    dim: Dim
    width: int
    time: float
    share: float
    left: float

    @property
    def gain(self) -> float:
        return self.share - self.time


def balanced(
    tracing: Tracing,
    counts: Mapping[Dim, int],
    block: int,
    dims: Iterable[Dim],
    least: int = 1,
) -> dict[Dim, int]:
    """Counts that take less time for their MACs, none further than a block from where it was.

    Args:
        tracing: The model.
        counts: How many indices each Dim keeps.
        block: Indices that are traded.
        dims: Those of the Dims that may take part.
        least: The fewest indices that a Dim may keep.
    """
    macs, effort = macs_cost(tracing), effort_cost(tracing)
    all_macs, all_effort = macs.total({}), effort.total({})
    kept, before = dict(counts), macs.total(counts)
    idle = [dim for dim in dims if not kept[dim] % block]

    def behind() -> bool:
        return effort.total(kept) / all_effort > ENOUGH * macs.total(kept) / all_macs

    def moves(width: Callable[[Dim], int]) -> list[_Move]:
        found = []
        for dim in idle:
            more = -macs.saved(kept, dim, width(dim))
            time = -effort.saved(kept, dim, width(dim))
            left = macs.total(kept) + more
            found.append(_Move(dim, width(dim), time / all_effort, more / all_macs, left))
        return found

    def gives() -> list[_Move]:
        return [
            each
            for each in moves(lambda dim: kept[dim] - block)
            if each.time < DEAR * each.share < 0
            and each.left >= LESS * before
            and each.width >= max((FEWEST - 1) * block, least)
        ]

    def takes() -> list[_Move]:
        return [
            each
            for each in moves(lambda dim: min(kept[dim] + block, dim.size))
            if each.time < each.share / DEAR and each.left <= MORE * before
        ]

    def make(every: list[_Move]) -> None:
        best = max(every, key=lambda each: each.gain)
        kept[best.dim] = best.width
        idle.remove(best.dim)

    while behind() and (every := gives()):
        make(every)
    while kept != counts and (behind() or macs.total(kept) < before) and (every := takes()):
        make(every)
    return kept
