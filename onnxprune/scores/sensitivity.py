"""How much a model's outputs feel an error at each of its contractions: measured, not assumed.

Every consumer in turn loses the indices that it misses least, a few at a time, and makes up for them as `obs` says.
Each time that its relative squared error passes one of `ERRORS`, the rest of the model is run on a few samples with the
changed weight. How far the outputs moved (see `distance`) is a point of its `Curve`. So no gradient is needed, any
model will do, and the errors have the shape that pruning gives them: correlated over space and channels, and growing
faster than their size, since what classes differ in goes last. On samples that the consumers' moments do not know, the
curve also tells how much worse a re-fit is there than where it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Contraction
from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.views import restored, store
from onnxprune.dims import Tracing
from onnxprune.graph.cost import macs
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, affordable
from onnxprune.scores.distance import Reference
from onnxprune.scores.obs import Consumer, Curve

__all__ = ["sensitivities"]

SAMPLES = 64
"""Samples that the outputs are compared on, unless that is too much work."""
FEWEST = 1
"""A sample is looked at however much work it is."""
WORK = 10**12
"""MACs that may be spent; a core does some 5e10 a second."""
ERRORS = (0.3, 0.6)
"""Relative squared errors that each consumer is given, about."""
SMALLEST, LARGEST = 1e-9, 1e6
"""Losses are taken to be between these: an output that does not move, and one that is no number any more."""

Array = np.ndarray


def sensitivities(
    tracing: Tracing,
    consumers: Sequence[Consumer],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
) -> dict[Contraction, Curve]:
    """For each contraction what loss of the outputs an error in it is worth, in one walk through the model."""
    walk = walk_of(tracing, data.take(_count(tracing, data, len(consumers))), providers)
    outputs = [value for value in tracing.model.graph.outputs if _is_float(value, tracing)]
    reference = Reference(walk.values(outputs))
    found: dict[Contraction, Curve] = {}

    def moved() -> float:
        return reference.moved(walk.values(outputs))

    with progress.step("measuring sensitivities", total=len(consumers)) as done:
        for consumer in consumers:
            each = consumer.contraction
            if each.data not in each.node.outputs:
                walk.advance(each.node)
            found[each] = _curve(consumer, moved)
            done(1)
    return found


def _count(tracing: Tracing, data: Dataset, runs: int) -> int:
    """How many samples are looked at, where the model is run so many times from its middle, on average twice."""
    batch = 1 if data.stacked else data.fixed_batch or 1
    each = macs(tracing.model, tracing.measured.shapes) / batch
    return affordable(each * runs, WORK, FEWEST, SAMPLES)


def _curve(consumer: Consumer, moved: Callable[[], float]) -> Curve:
    """Damages one weight step by step, and puts it back."""
    each = consumer.contraction
    points: list[tuple[float, float]] = []
    with restored(each.view):
        for matrix, error in _damaged(consumer.priced(Curve())):
            store(each.view, each.weight(matrix, each.view.shape))
            least = max([SMALLEST, *(loss * 1.0001 for _, loss in points[-1:])])
            loss = max(min(moved(), LARGEST), least)
            points.append((error, loss))
    return (
        Curve(tuple(e for e, _ in points), tuple(loss for _, loss in points)) if points else Curve()
    )


def _damaged(consumer: Consumer) -> Iterator[tuple[Array, float]]:
    """The weight, (G, M, K), and its error, each time that the error passes one of `ERRORS`."""
    shape = consumer.w.shape
    left = {dim: np.array(sorted(columns)) for dim, columns in consumer.columns.items()}
    for bar in ERRORS:
        while consumer.lost < bar:
            tries = [
                (consumer.errors(dim, kept), dim) for dim, kept in left.items() if len(kept) > 1
            ]
            if not tries:
                return
            errors, dim = min(tries, key=lambda one: float(one[0].min()))
            chosen = np.argsort(errors, kind="stable")[: max(1, len(errors) // 32)]
            consumer.remove(dim, left[dim][chosen])
            left[dim] = np.delete(left[dim], chosen)
        whole = np.zeros(shape)
        alive = consumer.place >= 0
        whole[:, :, alive] = consumer.w[:, :, consumer.place[alive]]
        yield whole, consumer.lost


def _is_float(value: ir.Value, tracing: Tracing) -> bool:
    return value in tracing.measured.shapes and (
        value.dtype is None or value.dtype.is_floating_point()
    )
