"""What the original gives at every place where a repaired model is to give the same.

Many cuts of one model are repaired towards the same numbers. So the original is walked through once for all of them:
of what it gives at a target, some positions of every sample are put on a shelf, to be looked up as often as a cut asks.

The samples come in parts, of which the first is fitted on while the second, where there is one, judges. How many
positions are looked at depends on the first alone, so that both parts together need not be read again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.moments import positions_seen
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Tracing
from onnxprune.recover.behind import Behind, behind
from onnxprune.recover.jobs import Job
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.shelf import Kept, Shelf

__all__ = ["Goal", "Original"]

MEMORY = 256 << 20
"""Bytes of goals held; where there are more, the others wait in temporary files."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Goal:
    """What should come out at one place.

    Attributes:
        where: Which positions of every sample are looked at; None: all.
        parts: For each part of the samples what the original gives there, float32 (1, rows, channels), samples
            outermost; where a MaxPool follows (3, rows, channels), with the least and the largest that it takes for it.
        behind: What follows, where that does not tell all apart.
    """

    where: Array | None
    parts: Sequence[Kept]
    behind: Behind | None


class Original:
    """A model that others are repaired towards, with the samples to do it on.

    Args:
        tracing: The model.
        parts: The samples: those to fit on, and where there are any those to judge on.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
    """

    def __init__(
        self,
        tracing: Tracing,
        parts: Sequence[Dataset],
        providers: Sequence[str] = ("cpu",),
        seed: int = 0,
    ) -> None:
        self.tracing, self.parts, self.providers, self.seed = tracing, parts, providers, seed
        self._shelf = Shelf(MEMORY)
        self._walk: Walk | None = None
        self._known: dict[ir.Value, Goal] = {}

    def walk(self, model: ir.Model) -> Walk:
        """A walk of the same samples through a model that was cut from this one."""
        return walk_of(self.tracing, self.parts, self.providers, model)

    def goal(self, job: Job) -> Goal:
        """What a contraction should give; it takes no running where it was asked before."""
        if job.target not in self._known:
            if self._walk is None or self._walk.is_past(job.each.node):
                self._walk = walk_of(self.tracing, self.parts, self.providers)
            self._walk.advance(job.each.node)
            self._known[job.target] = self._read(job, self._walk)
        return self._known[job.target]

    def _read(self, job: Job, walk: Walk) -> Goal:
        axis = {"conv": 1 - job.rank, "left": -2}.get(job.each.kind, -1)
        after = behind(job.target, axis, job.rank, len(job.outputs))
        (first,) = next(walk.values([job.target]))
        rows = job.each.outputs(first, None, 1).shape[1]
        positions = rows // (len(first) if first.ndim > 1 else 1)
        columns, samples = job.each.columns, len(self.parts[0])
        where = positions_seen(job.each, columns, samples, positions, self.seed)

        def seen(part: int) -> Iterator[Array]:
            for (t,) in walk.values([job.target], part):
                maps = [t] if after is None or after.pool is None else [t, *after.heard(t)]
                yield np.concatenate([job.each.outputs(y, where, 1) for y in maps])

        kept = [
            self._shelf.keep(np.concatenate(list(seen(part)), axis=1))
            for part in range(len(self.parts))
        ]
        return Goal(where, kept, after)
