"""Gathering the moments of many contractions in one walk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.calibrate.contraction import Contraction
from onnxprune.calibrate.moments import Sums, positions_seen
from onnxprune.calibrate.walk import Walk, value_sizes
from onnxprune.dims import Tracing
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset

__all__ = ["Observed", "collect", "walk_of"]


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
    tracing: Tracing, data: Dataset, providers: Sequence[str], model: ir.Model | None = None
) -> Walk:
    """A walk through the model traced, or through one that was cut from it."""
    batch = next((shape[0] for shape in tracing.measured.inputs.values() if shape), 1)
    sizes = value_sizes(tracing.measured.shapes, len(data), 1 if data.stacked else batch)
    return Walk(model or tracing.model, data, sizes, providers)


def collect(
    tracing: Tracing,
    wanted: Sequence[Contraction],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> list[Observed]:
    """The moments of what some contractions read, in one walk through the model.

    Args:
        tracing: The model and its shapes.
        wanted: Contractions of it, in graph order.
        data: The samples.
        progress: Where the walk is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
    """
    walk = walk_of(tracing, data, providers)
    found = []
    with progress.step("calibrating", total=len(wanted)) as done:
        for each in wanted:
            if each.data not in each.node.outputs:
                walk.advance(each.node)
            found.append(Observed(each, _sums(walk, each, len(data), seed)))
            done(1)
    return found


def _sums(walk: Walk, each: Contraction, samples: int, seed: int) -> Sums:
    sums = Sums(samples=samples)
    kernel, where, first = each.view.shape[2:], None, True
    for (x,) in walk.values([each.data]):
        if first:
            where, first = (
                positions_seen(each, each.columns, samples, each.positions(x, kernel), seed),
                False,
            )
        sums.add(each.inputs(x, where, kernel, each.groups), None)
    return sums
