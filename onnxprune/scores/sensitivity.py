"""How much a model's outputs feel an error at each of its contractions: measured, not assumed.

Every consumer in turn loses the indices that it misses least, a few at a time, and makes up for them as `obs` says.
Each time that its relative squared error passes one of `ERRORS`, the rest of the model is run on a few samples with the
changed weight. How far the outputs moved (the Kullback-Leibler divergence of scores of classes, the relative squared
change of others) is a point of its `Curve`. So no gradient is needed, any model will do, and the errors have the shape
that pruning gives them: correlated over space and channels, and growing faster than their size, since what classes
differ in goes last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Contraction, Observed
from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.views import store
from onnxprune.dims import Dim, Tracing
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.scores.obs import Consumer, Curve

__all__ = ["sensitivities"]

SAMPLES = 32
"""Samples that the outputs are compared on."""
ERRORS = (0.3, 0.6)
"""Relative squared errors that each consumer is given, about."""
SMALLEST = 1e-9

Array = np.ndarray


def sensitivities(
    tracing: Tracing,
    seen: Sequence[Observed],
    dims: set[Dim],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
) -> dict[Contraction, Curve]:
    """For each contraction what loss of the outputs an error in it is worth, in one walk through the model."""
    walk = walk_of(tracing, data.take(SAMPLES), providers)
    outputs = [value for value in tracing.model.graph.outputs if _is_float(value, tracing)]
    reference = [list(arrays) for arrays in walk.values(outputs)]
    spread = np.maximum(_spread(reference), 1e-30)
    found: dict[Contraction, Curve] = {}

    def moved() -> float:
        change = np.zeros(len(outputs))
        for arrays, before in zip(walk.values(outputs), reference, strict=True):
            change += [distance(b, a) for a, b in zip(arrays, before, strict=True)]
        return float(np.mean(change / spread))

    with progress.step("measuring sensitivities", total=len(seen)) as done:
        for each in seen:
            if each.contraction.data not in each.contraction.node.outputs:
                walk.advance(each.contraction.node)
            found[each.contraction] = _curve(each, dims, moved)
            done(1)
    return found


def _curve(seen: Observed, dims: set[Dim], moved: Callable[[], float]) -> Curve:
    """Damages one weight step by step, and puts it back."""
    each = seen.contraction
    original = np.array(each.view.read())
    points: list[tuple[float, float]] = []
    try:
        for matrix, error in _damaged(seen, dims):
            store(each.view, each.weight(matrix, original.shape))
            loss = max(moved(), *(loss * 1.0001 for _, loss in points[-1:]), SMALLEST)
            points.append((error, loss))
    finally:
        store(each.view, original)
    return (
        Curve(tuple(e for e, _ in points), tuple(loss for _, loss in points)) if points else Curve()
    )


def _damaged(seen: Observed, dims: set[Dim]) -> Iterator[tuple[Array, float]]:
    """The weight, (G, M, K), and its error, each time that the error passes one of `ERRORS`."""
    consumer = Consumer(seen, Curve(), dims)
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


def distance(before: Array, after: Array) -> float:
    """How far outputs moved, summed over samples.

    The Kullback-Leibler divergence, in nats, of rows that are scores of classes or their probabilities; of other
    outputs the squared change.
    """
    a, b = before.astype(np.float64), after.astype(np.float64)
    if scores_classes(before):
        p, q = _log_probabilities(a), _log_probabilities(b)
        return float(np.sum(np.exp(p) * (p - q)))
    return float(np.sum((a - b) ** 2))


def scores_classes(output: Array) -> bool:
    """Whether an output looks like scores of classes: a row of at least two numbers for each sample."""
    return output.size > len(output) > 0 and output.size == len(output) * max(
        output.shape[1:], default=1
    )


def _log_probabilities(rows: Array) -> Array:
    rows = rows.reshape(len(rows), -1)
    if (rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3):
        return np.asarray(np.log(np.maximum(rows, 1e-9)))
    rows = rows - rows.max(1, keepdims=True)
    return np.asarray(rows - np.log(np.exp(rows).sum(1, keepdims=True)))


def _is_float(value: ir.Value, tracing: Tracing) -> bool:
    return value in tracing.measured.shapes and (
        value.dtype is None or value.dtype.is_floating_point()
    )


def _spread(reference: Sequence[Sequence[Array]]) -> list[float]:
    """What changes are relative to: the number of samples for scores of classes, else squares about the mean."""
    spreads = []
    for parts in zip(*reference, strict=True):
        if scores_classes(parts[0]):
            spreads.append(float(sum(len(part) for part in parts)))
            continue
        whole = np.concatenate(
            [np.asarray(part, np.float64).reshape(len(part), -1) for part in parts]
        )
        spreads.append(float(np.sum((whole - whole.mean(0)) ** 2)) or float(np.sum(whole**2)))
    return spreads
