"""Gathering the moments of many contractions in one walk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.contraction import Contraction
from onnxprune.calibrate.moments import Sums, positions_seen
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Tracing
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset

__all__ = ["Observed", "collect", "rows_seen", "walk_of"]


@dataclass(frozen=True, eq=False)
class Observed:
    """A contraction with the sums of what it reads.

    Attributes:
        contraction: The contraction.
        sums: Of x alone.
    """

    contraction: Contraction
    sums: Sums


def walk_of(
    tracing: Tracing,
    data: Dataset | Sequence[Dataset],
    providers: Sequence[str],
    model: ir.Model | None = None,
) -> Walk:
    """A walk through the model traced, or through one that was cut from it; of samples in one part or several."""
    parts = [data] if isinstance(data, Dataset) else data
    return Walk(model or tracing.model, parts, providers)


def collect(
    tracing: Tracing,
    wanted: Sequence[Contraction],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> Iterator[Observed]:
    """The moments of what some contractions read, one after the other, in one walk through the model.

    Args:
        tracing: The model and its shapes.
        wanted: Contractions of it, in graph order.
        data: The samples.
        progress: Where the walk is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
    """
    walk = walk_of(tracing, data, providers)
    with progress.step("calibrating", total=len(wanted)) as done:
        for each in wanted:
            if each.data not in each.node.outputs:
                walk.advance(each.node)
            yield Observed(each, _sums(walk, each, len(data), seed))
            done(1)


def _sums(walk: Walk, each: Contraction, samples: int, seed: int) -> Sums:
    sums = Sums(samples=samples)
    for rows in rows_seen(walk, each, each.data, samples, seed):
        sums.add(rows, None)
    return sums


def rows_seen(
    walk: Walk, each: Contraction, data: ir.Value, samples: int, seed: int
) -> Iterator[np.ndarray]:
    """What the columns of W meet at the positions looked at, batch by batch: float32, (G, n * positions, K).

    Args:
        walk: Has come as far as the contraction.
        each: The contraction.
        data: What it reads, in the model walked through.
        samples: How many there are in all.
        seed: Of the positions.
    """
    kernel, where, first = each.view.shape[2:], None, True
    for (x,) in walk.values([data]):
        if first:
            positions = each.positions(x, kernel)
            where, first = positions_seen(each, each.columns, samples, positions, seed), False
        yield each.inputs(x, where, kernel, each.groups)
