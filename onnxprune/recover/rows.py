"""What a contraction of the pruned model reads, and what it should give, as they come while both models are walked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from onnxprune.calibrate.moments import Sums, positions_seen
from onnxprune.calibrate.walk import Walk
from onnxprune.recover.behind import Behind, behind
from onnxprune.recover.jobs import Job, channels_left, twin_groups

__all__ = ["Rows", "Run"]

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


@dataclass(frozen=True, eq=False)
class Run:
    """Some samples on their way through the pruned model, and through the original.

    Attributes:
        jobs: What is to be repaired.
        before: In the original.
        after: In the pruned model.
    """

    jobs: Sequence[Job]
    before: Walk
    after: Walk

    def rows(self, number: int, samples: int, seed: int) -> Rows:
        """Goes as far as a contraction; `samples` is how many there are in all."""
        job = self.jobs[number]
        self.before.advance(job.each.node)
        self.after.advance(job.twin)
        return Rows(job, self, samples, seed)


class Rows:
    """What a contraction reads and should give, batch by batch: read again each time, unless it is little.

    Attributes:
        behind: What follows the target, where that does not tell all apart.
    """

    def __init__(self, job: Job, run: Run, samples: int, seed: int) -> None:
        self.job, self.run, self.samples, self.seed = job, run, samples, seed
        self.kept: list[Batch] | None = None
        axis = {"conv": 1 - job.rank, "left": -2}.get(job.each.kind, -1)
        found = behind(job.target, axis, job.rank, len(job.outputs))
        self.behind: Behind | None = None if found is None else found.of(job.outputs)

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
        targets = Sums(t=np.zeros(b.shape), tt=np.zeros(b.shape), tx=np.zeros(w.shape))
        for x, t, right, other in self:
            given = x @ weight + bias
            given = given if other is None else given + other
            moved = t if right is None else np.clip(given, *right)
            moved = moved if other is None else moved - other
            targets.t += moved.sum(1, dtype=np.float64)
            targets.tt += np.square(moved, dtype=np.float64).sum(1)
            targets.tx += moved.transpose(0, 2, 1) @ x
        return replace(sums, t=targets.t, tt=targets.tt, tx=targets.tx)

    def _read(self) -> Iterator[Batch]:
        job, run = self.job, self.run
        each, weight = job.each, job.view.read()
        groups, kernel = twin_groups(job), weight.shape[2:]
        columns = each.matrix(weight, groups).shape[2]
        needed = [job.data] if job.other is None else [job.data, job.other]
        where, first = None, True
        for mine, theirs in zip(
            run.after.values(needed), run.before.values([job.target]), strict=True
        ):
            x, t = mine[0], channels_left(theirs[0], job)
            if first:
                positions = each.positions(x, kernel)
                where = positions_seen(each, columns, self.samples, positions, self.seed)
                first = False
            maps = [t, *mine[1:]]
            if self.behind is not None and self.behind.pool is not None:
                maps += self.behind.heard(t)
            goal, *more = (each.outputs(y, where, groups) for y in maps)
            other = more.pop(0) if job.other is not None else None
            right = None
            if self.behind is not None:
                right = self.behind.interval(*(more or (goal, goal)))
            yield Batch(each.inputs(x, where, kernel, groups), goal, right, other)
