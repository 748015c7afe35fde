"""What a contraction of the pruned model reads, and what it should give, as they come while it is walked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from onnxprune.calibrate.moments import Sums
from onnxprune.calibrate.walk import Walk
from onnxprune.recover.jobs import Job, twin_groups
from onnxprune.recover.original import Goal

__all__ = ["Rows"]

KEPT = 256 << 20
"""Bytes of rows that are kept from one time to the next."""

Array = np.ndarray


class Batch(NamedTuple):
    """Some rows of what a contraction reads and gives.

    Attributes:
        x: What it reads, (G, P, K).
        t: What it should give, (G, P, M).
        right: The least and the largest that are as right, where not t alone is.
        other: What an Add behind adds to what it gives, where one does.
    """

    x: Array
    t: Array
    right: tuple[Array, Array] | None
    other: Array | None

    @property
    def nbytes(self) -> int:
        """Memory taken."""
        more = [self.other] if self.other is not None else []
        return sum(array.nbytes for array in (self.x, self.t, *(self.right or ()), *more))


class Rows:
    """What a contraction reads and should give, batch by batch: read again each time, unless it is little.

    Args:
        job: The contraction.
        goal: What it should give.
        walk: Through the pruned model; has come as far as the contraction.
        parts: Which parts of the samples.
    """

    def __init__(self, job: Job, goal: Goal, walk: Walk, parts: Sequence[int]) -> None:
        self.job, self.goal, self.walk, self.parts = job, goal, walk, parts
        self.kept: list[Batch] | None = None
        self.behind = None if goal.behind is None else goal.behind.of(job.outputs)

    def __iter__(self) -> Iterator[Batch]:
        if self.kept is not None:
            yield from self.kept
            return
        kept, size = list[Batch](), 0
        for batch in self._read():
            yield batch
            size += batch.nbytes
            if size <= KEPT:
                kept.append(batch)
        if size <= KEPT:
            self.kept = kept

    def sums(self) -> Sums:
        """Of x, and of what it should give alone."""
        found = Sums()
        for x, t, _, other in self:
            found.add(x, t if other is None else t - other)
        return found

    def towards(self, sums: Sums, w: Array, b: Array) -> Sums:
        """The sums with targets that are as right, and nearest to what w (G, M, K) and b (G, M) give."""
        weight, bias = w.astype(np.float32).transpose(0, 2, 1), b.astype(np.float32)[:, None]
        found = sums.untold()
        for x, t, right, other in self:
            given = x @ weight + bias
            given = given if other is None else given + other
            moved = t if right is None else np.clip(given, *right)
            found.add_targets(x, moved if other is None else moved - other)
        return found

    def _read(self) -> Iterator[Batch]:
        job, each, where = self.job, self.job.each, self.goal.where
        kernel, groups = job.view.shape[2:], twin_groups(job)
        needed = [job.data] if job.other is None else [job.data, job.other]
        for part in self.parts:
            goals, start = self.goal.parts[part].read(), 0
            for data, *more in self.walk.values(needed, part):
                x = each.inputs(data, where, kernel, groups)
                end = start + x.shape[1]
                t, *heard = (_left(goal[start:end], job.outputs, groups) for goal in goals)
                other = each.outputs(more[0], where, groups) if more else None
                right = None if self.behind is None else self.behind.interval(*(heard or (t, t)))
                yield Batch(x, t, right, other)
                start = end


def _left(rows: Array, channels: Array, groups: int) -> Array:
    """The channels that are left, by group: (rows, channels) -> (G, rows, channels of a group)."""
    left = rows if channels.all() else np.compress(channels, rows, axis=1)
    return np.ascontiguousarray(left.reshape(len(left), groups, -1).transpose(1, 0, 2))
