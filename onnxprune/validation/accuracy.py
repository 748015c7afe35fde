"""Accuracy of a model on labelled data, without being told what its outputs mean.

Integer labels make it a classification, measured by top-1: the predicted class is the largest entry
along the class axis. The class axis is whatever axis the output has and the labels have not: axis 1
of (N, C), of (N, C, H, W) with labels (N, H, W), the last of (N, T, C) with labels (N, T). Axes of
size 1 do not count. An output that holds classes already counts as it is, and one with a single score
a sample is cut at 0.5 if it stays within 0 and 1, else at 0.

Float labels make it a regression, measured by the coefficient of determination R2: 1 is perfect, 0
is as good as always saying the mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run

__all__ = ["Accuracy", "accuracy", "accuracy_of", "answers_of", "class_scores", "sample_scores"]


@dataclass(frozen=True)
class Accuracy:
    """How right a model is.

    Attributes:
        metric: `top-1` (share of right answers) or `R2`; higher is better for both.
        value: The metric, at most 1.
        samples: Samples it was measured on.
        output: Name of the output that was held against the labels.
    """

    metric: str
    value: float
    samples: int
    output: str

    def to_dict(self) -> dict[str, object]:
        """The figures as plain data; a value that is not finite becomes None."""
        plain = asdict(self)
        return plain if math.isfinite(self.value) else {**plain, "value": None}


def accuracy(session: ort.InferenceSession, data: Dataset, batch: int = 32) -> Accuracy:
    """Runs the model on all samples and holds its answers against the labels.

    Args:
        session: Session of the model.
        data: Samples with labels.
        batch: Samples a run, where the model leaves the choice.

    Raises:
        DataError: There are no labels, or no output has a shape that goes with them.
        ModelError: The model does not run.
    """
    names = [output.name for output in session.get_outputs()]
    return accuracy_of(names, (run(session, feed) for feed in data.batches(batch)), data, batch)


def accuracy_of(
    names: Sequence[str], results: Iterable[Sequence[Any]], data: Dataset, batch: int = 32
) -> Accuracy:
    """`accuracy` of outputs that were computed already.

    Args:
        names: Names of the outputs.
        results: The outputs for each of `data.batches(batch)`.
        data: Samples with labels.
        batch: Samples a run.

    Raises:
        DataError: There are no labels, or no output has a shape that goes with them.
    """
    answers, output = answers_of(names, results, data, batch)
    assert data.labels is not None
    if _is_regression(data.labels):
        return Accuracy("R2", _r2(answers, data.labels), len(data), output)
    value = float(np.mean(_classes(answers) == data.labels))
    return Accuracy("top-1", value, len(data), output)


def answers_of(
    names: Sequence[str], results: Iterable[Sequence[Any]], data: Dataset, batch: int = 32
) -> tuple[np.ndarray, str]:
    """The answers to all samples, of the labels' shape, and the name of the output that gave them.

    Args and errors as of `accuracy_of`.
    """
    if data.labels is None:
        raise DataError("accuracy needs labels, and the data have none")
    regression = _is_regression(data.labels)
    chosen: int | None = None
    predictions: list[np.ndarray] = []
    for rows, outputs in zip(data.batch_rows(batch), results, strict=True):
        shape = data.labels[rows].shape
        if data.stacked:
            outputs = [out[None] if isinstance(out, np.ndarray) else out for out in outputs]
        if chosen is None:
            chosen = _choose(outputs, shape, regression)
        answer = None if chosen is None else _answers(outputs[chosen], shape, regression)
        if answer is None:
            raise DataError(_mismatch(names, outputs, shape))
        predictions.append(answer)
    assert chosen is not None, "a data set has at least one batch"
    return np.concatenate(predictions), names[chosen]


def sample_scores(answers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each sample adds to the accuracy, whose mean it is: (samples,).

    Of a classification the share of its labels that are right; of a regression 1 less its squared error over the
    mean variance of the targets.
    """
    rest = tuple(range(1, labels.ndim))
    if not _is_regression(labels):
        return np.asarray((_classes(answers) == labels).mean(rest, dtype=np.float64))
    answers, targets = answers.astype(np.float64), labels.astype(np.float64)
    spread = float(np.mean(((targets - targets.mean(0)) ** 2).sum(rest)))
    return np.asarray(1.0 - ((answers - targets) ** 2).sum(rest) / (spread or 1.0))


def class_scores(output: np.ndarray) -> np.ndarray | None:
    """An output as (samples, classes), axes of size 1 dropped; None where it is no such thing."""
    if output.dtype.kind != "f" or output.ndim < 2:
        return None
    squeezed = _drop_ones(output, 2)
    return squeezed if squeezed.ndim == 2 and squeezed.shape[1] > 1 else None


def _is_regression(labels: np.ndarray) -> bool:
    return labels.dtype.kind in "fV"


def _choose(outputs: Sequence[object], shape: tuple[int, ...], regression: bool) -> int | None:
    """The first output that goes with labels of that shape; scores are preferred to decisions."""
    fitting = [
        index for index, out in enumerate(outputs) if _answers(out, shape, regression) is not None
    ]
    scores = [i for i in fitting if np.asarray(outputs[i]).dtype.kind == "f"]
    return next(iter([*scores, *fitting]), None)


def _answers(output: object, shape: tuple[int, ...], regression: bool) -> np.ndarray | None:
    """One answer for each label, of the labels' shape; None if the output does not go with them."""
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
        return None
    sizes = [*shape[:1], *(size for size in shape[1:] if size != 1)]
    squeezed = _drop_ones(output, len(sizes))
    if [*squeezed.shape] == sizes:
        return squeezed.reshape(shape)
    if regression or output.dtype.kind != "f":
        return None
    for scores in (output, _drop_ones(output, len(sizes) + 1)):
        for axis in (1, -1):
            if scores.ndim == len(sizes) + 1 and np.delete(scores.shape, axis).tolist() == sizes:
                return np.asarray(scores.argmax(axis)).reshape(shape)
    return None


def _drop_ones(array: np.ndarray, rank: int) -> np.ndarray:
    """Drops axes of size 1, from the last, until the rank is reached; never the samples' axis."""
    for axis in range(array.ndim - 1, 0, -1):
        if array.ndim > rank and array.shape[axis] == 1:
            array = array.squeeze(axis)
    return array


def _classes(answers: np.ndarray) -> np.ndarray:
    """Classes 0 and 1 from single scores; anything else is classes already."""
    if answers.dtype.kind != "f":
        return answers
    probabilities = bool(np.all((answers >= 0) & (answers <= 1)))
    return (answers > (0.5 if probabilities else 0.0)).astype(np.int64)


def _r2(answers: np.ndarray, targets: np.ndarray) -> float:
    answers, targets = answers.astype(np.float64), targets.astype(np.float64)
    residual = float(np.sum((answers - targets) ** 2))
    spread = float(np.sum((targets - targets.mean(0)) ** 2))
    if not spread:
        return 1.0 if not residual else -math.inf
    return 1.0 - residual / spread


def _mismatch(names: Sequence[str], outputs: Sequence[object], labels: tuple[int, ...]) -> str:
    shapes = ", ".join(
        f"{name!r} {np.shape(out) if isinstance(out, np.ndarray) else 'no tensor'}"
        for name, out in zip(names, outputs, strict=True)
    )
    return f"no output goes with labels of shape {labels}: {shapes}"
