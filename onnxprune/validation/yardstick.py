"""What a pruned model has lost, on samples that neither chose what to prune nor repaired it.

Measured on few samples a drop says little: a model that differs on none of 50 may well differ on one of 40. So a model
stays within an allowed drop when the upper end of an interval does, at a confidence of 95 %:

    max(drop, 0) + 1.645 error <= allowed

for pruning makes no model better, whatever the samples say. The drop and its standard error are, by what is known,

1. of classifiers with one decision a sample, told from margins (see `margins`);
2. of regressions and of dense decisions, the mean and the error of the differences d of the samples' scores;
3. of bare decisions the same with half a sample added to each of the four cells of right and wrong, as zero differences
   would have no error (Agresti and Min 2005, "Simple improved confidence intervals for comparing matched proportions",
   Statistics in Medicine 24): sum d / (n + 2), and sqrt(sum d^2 + 1 - (sum d)^2 / (n + 2)) / (n + 2).

Without labels the original's own answers are the right ones, and the accuracy is the agreement with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import session
from onnxprune.validation.margins import lost
from onnxprune.validation.right import Labels, OwnAnswers, Scores

__all__ = ["Drop", "Yardstick", "drop_of"]

BATCH = 32
"""Samples a run."""
CONFIDENCE = 1.645
"""Standard errors: 95 % to one side."""


@dataclass(frozen=True)
class Drop:
    """What a model is worth, and what it has lost.

    Attributes:
        metric: `top-1` or `R2`, against the labels; `agreement` or `R2` against the original's answers.
        value: Of the model; higher is better, at most 1.
        before: Of the original; 1 without labels.
        bound: The upper end of the interval around the drop, see the module.
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
        self._right: Labels | OwnAnswers = (
            OwnAnswers(made, data, BATCH) if data.labels is None else Labels(data, BATCH)
        )
        self._before = self._right.scores(made)

    def measure(self, model: ir.Model) -> Drop:
        """What a model has lost.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        after = self._right.scores(session(model, self.providers))
        return drop_of(self._right.metric, self._before, after)


def drop_of(metric: str, before: Scores, after: Scores) -> Drop:
    """The drop between two models' scores of the same samples."""
    drop, error = _drop(before, after)
    bound = max(drop, 0.0) + CONFIDENCE * error
    return Drop(
        metric,
        float(after.values.mean()),
        float(before.values.mean()),
        bound if math.isfinite(bound) else math.inf,
        len(after.values),
    )


def _drop(before: Scores, after: Scores) -> tuple[float, float]:
    """The drop and its standard error, by the three ways of the module."""
    if before.margins is not None and after.margins is not None:
        finite = np.isfinite(after.margins).all()
        return lost(before.margins, after.margins) if finite else (math.inf, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        d = before.values.astype(np.float64) - after.values
        added = 2 if before.bare else 0
        n = len(d) + added
        variance = max(float((d**2).sum() + added / 2 - d.sum() ** 2 / n), 0.0)
        return float(d.sum() / n), math.sqrt(variance) / n
