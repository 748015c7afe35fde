"""What a pruned model has lost, on samples that neither chose what to prune nor repaired it.

Both models answer the same samples, so what counts is the mean of the differences d of their scores. Measured on few
samples it says little: a model that differs on none of 50 may well differ on one of 40. So a model stays within an
allowed drop when the upper end of an interval does, one standard error wide to each side:

    drop <= (sum d + sqrt(sum d^2 + 1 - (sum d)^2 / (n + 2))) / (n + 2)

which is the mean of d and its error with half a sample added to each of the four cells of right and wrong (Agresti and
Min 2005, "Simple improved confidence intervals for comparing matched proportions", Statistics in Medicine 24).

Without labels the original's own answers are the right ones, and the accuracy is the agreement with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.validate.accuracy import answers_of, sample_scores
from onnxprune.validate.agreement import OwnAnswers

__all__ = ["Drop", "Yardstick", "drop_of"]

BATCH = 32
"""Samples a run."""


@dataclass(frozen=True)
class Drop:
    """What a model is worth, and what it has lost.

    Attributes:
        metric: `top-1` or `R2`, against the labels; `agreement` or `R2` against the original's answers.
        value: Of the model; higher is better, at most 1.
        before: Of the original; 1 without labels.
        bound: The upper end of the interval around `before - value`, see the module.
        samples: How many were held aside.
    """

    metric: str
    value: float
    before: float
    bound: float
    samples: int

    @property
    def drop(self) -> float:
        """What was lost on these samples."""
        return self.before - self.value

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return asdict(self)


class _Scores(Protocol):
    metric: str

    def __call__(self, made: ort.InferenceSession) -> np.ndarray: ...


class Yardstick:
    """The samples held aside, and what the original says to them.

    Args:
        original: The model to compare with.
        data: The samples, with labels or without.
        providers: onnxruntime providers by name.

    Raises:
        DataError: No output goes with the labels; without labels, no output holds numbers.
    """

    def __init__(
        self, original: ir.Model, data: Dataset, providers: Sequence[str] = ("cpu",)
    ) -> None:
        self.providers = providers
        made = session(original, providers)
        self._scores: _Scores = (
            OwnAnswers(made, data, BATCH) if data.labels is None else _Labels(data)
        )
        self._before = self._scores(made)

    def measure(self, model: ir.Model) -> Drop:
        """What a model has lost.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        after = self._scores(session(model, self.providers))
        return drop_of(self._scores.metric, self._before, after)


class _Labels:
    """Scores against labels."""

    def __init__(self, data: Dataset) -> None:
        assert data.labels is not None
        self.data, self.labels = data, data.labels
        self.metric = "R2" if data.labels.dtype.kind in "fV" else "top-1"

    def __call__(self, made: ort.InferenceSession) -> np.ndarray:
        names = [output.name for output in made.get_outputs()]
        results = (run(made, feed) for feed in self.data.batches(BATCH))
        answers, _ = answers_of(names, results, self.data, BATCH)
        return sample_scores(answers, self.labels)


def drop_of(metric: str, before: np.ndarray, after: np.ndarray) -> Drop:
    """The drop between two models' scores of the same samples, both of shape (samples,), finite or not."""
    with np.errstate(over="ignore", invalid="ignore"):
        d = before.astype(np.float64) - after
        n, mean = len(d) + 2, d.sum() / (len(d) + 2)
        bound = mean + np.sqrt(((d**2).sum() + 1) / n - mean**2) / math.sqrt(n)
    known = float(bound) if np.isfinite(bound) else math.inf
    return Drop(metric, float(after.mean()), float(before.mean()), known, len(d))
