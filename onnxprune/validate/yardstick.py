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
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.sampling.objective import own_classes
from onnxprune.validate.accuracy import answers_of, sample_scores

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


class Yardstick:
    """The samples held aside, and what the original says to them.

    Args:
        original: The model to compare with.
        data: The samples, with labels or without.
        providers: onnxruntime providers by name.

    Raises:
        DataError: No output goes with the labels; without labels, no output has the samples along its first axis.
    """

    def __init__(
        self, original: ir.Model, data: Dataset, providers: Sequence[str] = ("cpu",)
    ) -> None:
        self.providers = providers
        made = session(original, providers)
        labels = data.labels
        if labels is None:
            self.data = replace(data, labels=_own_answers(made, data))
        else:
            self.data = data
        assert self.data.labels is not None
        kind = "R2" if self.data.labels.dtype.kind in "fV" else "top-1"
        self.metric = "agreement" if labels is None and kind == "top-1" else kind
        self._before = self._scores(made)

    def measure(self, model: ir.Model) -> Drop:
        """What a model has lost.

        Raises:
            ModelError: onnxruntime does not run it.
        """
        after = self._scores(session(model, self.providers))
        return drop_of(self.metric, self._before, after)

    def _scores(self, made: ort.InferenceSession) -> np.ndarray:
        assert self.data.labels is not None
        names = [output.name for output in made.get_outputs()]
        results = (run(made, feed) for feed in self.data.batches(BATCH))
        answers, _ = answers_of(names, results, self.data, BATCH)
        return sample_scores(answers, self.data.labels)


def drop_of(metric: str, before: np.ndarray, after: np.ndarray) -> Drop:
    """The drop between two models' scores of the same samples, both of shape (samples,)."""
    d = before.astype(np.float64) - after
    n, total, squares = len(d) + 2, float(d.sum()), float((d**2).sum())
    bound = (total + math.sqrt(squares + 1.0 - total**2 / n)) / n
    finite = math.isfinite(bound)
    return Drop(
        metric, float(after.mean()), float(before.mean()), bound if finite else math.inf, len(d)
    )


def _own_answers(made: ort.InferenceSession, data: Dataset) -> np.ndarray:
    """The original's answers as labels: classes where an output holds class scores, else the first float output."""
    results = [run(made, feed) for feed in data.batches(BATCH)]
    first = next(data.batch_rows(BATCH))
    count = first.stop - first.start
    outputs = {
        k: array
        for k, array in enumerate(results[0])
        if isinstance(array, np.ndarray) and array.dtype.kind == "f" and array.shape[:1] == (count,)
    }
    if not outputs:
        raise DataError(
            "agreement with the original needs a float output with the samples along its first axis: give labels"
        )
    for k, array in outputs.items():
        axis = own_classes(array)
        if axis is not None:
            return np.concatenate([each[k].argmax(axis) for each in results])
    k = next(iter(outputs))
    return np.concatenate([each[k] for each in results])
