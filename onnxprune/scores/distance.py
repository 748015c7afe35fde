"""How far the outputs of a model have moved: one number for all of them, comparable between models and tasks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

__all__ = ["Reference", "distance", "scores_classes"]

SMALLEST = 1e-30
WIDEST = 4.0
"""Standard deviation of the scores of one sample's classes beyond which their softmax is one class and no other."""

Array = np.ndarray


class Reference:
    """What a model's float outputs are before anything is changed.

    Outputs of which samples have no sizes of their own alone are left out: they cannot be compared number by number.

    Args:
        batches: The outputs, batch by batch, samples along axis 0.
    """

    def __init__(self, batches: Iterable[Sequence[Array]]) -> None:
        every = [list(arrays) for arrays in batches]
        self._compared = [k for k, parts in enumerate(zip(*every, strict=True)) if _alike(parts)]
        self.batches = [[arrays[k] for k in self._compared] for arrays in every]
        self._scales = [_scale(parts) for parts in zip(*self.batches, strict=True)]
        self._spread = np.maximum(
            [_spread(parts) for parts in zip(*self.batches, strict=True)], SMALLEST
        )

    @property
    def compares(self) -> bool:
        """Whether there is anything to compare."""
        return bool(self._compared)

    def moved(self, batches: Iterable[Sequence[Array]]) -> float:
        """The mean over outputs of their distance from the reference.

        Of scores of classes the mean Kullback-Leibler divergence, in nats; of others the squared change relative to
        the squares about the mean. Infinite where numbers have become none.
        """
        change = np.zeros(len(self._spread))
        for arrays, before in zip(batches, self.batches, strict=True):
            after = [arrays[k] for k in self._compared]
            change += [
                distance(b, a, scale)
                for a, b, scale in zip(after, before, self._scales, strict=True)
            ]
        found = float(np.mean(change / self._spread)) if len(change) else 0.0
        return found if math.isfinite(found) else math.inf


def distance(before: Array, after: Array, scale: float = 1.0) -> float:
    """How far an output moved, summed over samples.

    The Kullback-Leibler divergence, in nats, of rows that are scores of classes, times `scale`, or their
    probabilities; of other outputs the squared change. One that has become another shape counts as if it were zeros.
    """
    if before.shape != after.shape:
        after = np.zeros_like(before)
    a, b = before.astype(np.float64), after.astype(np.float64)
    if scores_classes(before):
        p, q = _log_probabilities(a * scale), _log_probabilities(b * scale)
        return float(np.sum(np.exp(p) * (p - q)))
    return float(np.sum((a - b) ** 2))


def _alike(parts: Sequence[Array]) -> bool:
    """Whether an output is as large for all samples."""
    return parts[0].ndim > 0 and len({part.shape[1:] for part in parts}) == 1


def scores_classes(output: Array) -> bool:
    """Whether an output looks like scores of classes: a row of at least two numbers for each sample."""
    return output.size > len(output) > 0 and output.size == len(output) * max(
        output.shape[1:], default=1
    )


def _log_probabilities(rows: Array) -> Array:
    rows = rows.reshape(len(rows), -1)
    if _probabilities(rows):
        return np.asarray(np.log(np.maximum(rows, 1e-9)))
    rows = rows - rows.max(1, keepdims=True)
    return np.asarray(rows - np.log(np.exp(rows).sum(1, keepdims=True)))


def _probabilities(rows: Array) -> bool:
    return bool((rows >= 0).all() and np.allclose(rows.sum(1), 1, atol=1e-3))


def _scale(parts: Sequence[Array]) -> float:
    """What scores are multiplied by: less than 1 where they are so far apart that a softmax would tell nothing."""
    if not scores_classes(parts[0]):
        return 1.0
    rows = np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts])
    deviation = float(rows.std(1).mean())
    return 1.0 if _probabilities(rows) else min(1.0, WIDEST / max(deviation, SMALLEST))


def _spread(parts: Sequence[Array]) -> float:
    """What changes are relative to: the number of samples for scores of classes, else squares about the mean."""
    if scores_classes(parts[0]):
        return float(sum(len(part) for part in parts))
    whole = np.concatenate([np.asarray(part, np.float64).reshape(len(part), -1) for part in parts])
    return float(np.sum((whole - whole.mean(0)) ** 2)) or float(np.sum(whole**2))
