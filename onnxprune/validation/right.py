"""What counts as right: the labels, or where there are none the original's own answers; and the scores of models by it.

With the original's answers a unit is a sample where the outputs have the samples along their first axis; else (states,
sequences, boxes that are left over) a whole feed of the smallest size. The first output that holds class scores is
compared by its decisions, the share of a unit's that are the same; where none does, the first of floats by 1 less its
squared error over the variance of the original's numbers, as R2 has it; where there are none, the first of integers by
the share that is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run
from onnxprune.sampling.objective import own_classes
from onnxprune.validation.accuracy import answers_of, class_scores, sample_scores
from onnxprune.validation.margins import margins

__all__ = ["Labels", "OwnAnswers", "Scores"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Scores:
    """A model's scores, sample by sample.

    Attributes:
        values: (samples,), 1 where everything is right; their mean is the accuracy.
        margins: (samples,), how far each decision is from another one; None where a sample has not one decision that
            is made from class scores.
        bare: Whether each sample is one decision, right or wrong.
    """

    values: Array
    margins: Array | None = None
    bare: bool = False


class Labels:
    """Scores against labels.

    Args:
        data: The samples and their labels.
        batch: Samples a run.
    """

    def __init__(self, data: Dataset, batch: int) -> None:
        assert data.labels is not None
        self._data, self._labels, self._batch = data, data.labels, batch
        self.metric = "R2" if data.labels.dtype.kind in "fV" else "top-1"

    def scores(self, made: ort.InferenceSession) -> Scores:
        """The scores of a model.

        Raises:
            DataError: No output goes with the labels.
        """
        names = [output.name for output in made.get_outputs()]
        results = [run(made, feed) for feed in self._data.batches(self._batch)]
        answers, output = answers_of(names, results, self._data, self._batch)
        values = sample_scores(answers, self._labels)
        if self.metric == "R2":
            return Scores(values)
        k = names.index(output)
        parts = [class_scores(each[k]) for each in results] if self._labels.ndim == 1 else [None]
        known = [part for part in parts if part is not None]
        told = margins(np.concatenate(known), self._labels) if len(known) == len(parts) else None
        return Scores(values, told, bare=self._labels.size == len(values))


class OwnAnswers:
    """Scores against what the original says.

    Args:
        made: A session of the original.
        data: The samples.
        batch: Samples a run, where the outputs tell them apart.

    Raises:
        DataError: No output holds numbers.
    """

    def __init__(self, made: ort.InferenceSession, data: Dataset, batch: int) -> None:
        rows = next(data.batch_rows(batch))
        outputs = {
            k: array
            for k, array in enumerate(run(made, data.feed(rows)))
            if isinstance(array, np.ndarray) and array.dtype.kind in "fiub" and array.size
        }
        if not outputs:
            raise DataError("agreement with the original needs an output of numbers: give labels")
        axes = {k: own_classes(a) if a.dtype.kind == "f" else None for k, a in outputs.items()}
        scored = [k for k, axis in axes.items() if axis is not None]
        floats = [k for k, array in outputs.items() if array.dtype.kind == "f"]
        self._output = [*scored, *floats, *outputs][0]
        self._axis = axes[self._output]
        self._numbers = not scored and bool(floats)
        self.metric = "R2" if self._numbers else "agreement"
        apart = outputs[self._output].shape[:1] == (rows.stop - rows.start,) and not data.stacked
        self._apart, self._data, self._batch = apart, data, batch if apart else 1
        self._said = list(self._units(made))
        self._spread = _spread([unit for unit, _ in self._said]) if self._numbers else 1.0

    def scores(self, made: ort.InferenceSession) -> Scores:
        """The scores of a model."""
        mine = list(self._units(made))
        pairs = [(a, b) for (a, _), (b, _) in zip(mine, self._said, strict=True)]
        values = np.array([self._score(a, b) for a, b in pairs])
        if self._numbers:
            return Scores(values)
        bare = all(said.size == 1 for _, said in pairs)
        rows = [row for _, row in mine if row is not None]
        if not bare or len(rows) < len(mine):
            return Scores(values, bare=bare)
        right = np.concatenate([said.reshape(-1) for _, said in pairs])
        return Scores(values, margins(np.stack(rows), right), bare)

    def _units(self, made: ort.InferenceSession) -> Iterator[tuple[Array, Array | None]]:
        """What a model decides on each unit (or its numbers), and the class scores behind a single decision."""
        for rows in self._data.batch_rows(self._batch):
            output = run(made, self._data.feed(rows))[self._output]
            for unit in output[:, None] if self._apart else [output]:
                decided = unit if self._axis is None else np.asarray(unit.argmax(self._axis))
                single = self._axis is not None and decided.size == 1
                yield decided, unit.reshape(-1) if single else None

    def _score(self, mine: Array, said: Array) -> float:
        if mine.shape != said.shape:  # as many boxes as were found
            return 0.0
        if not self._numbers:
            return float(np.mean(mine == said))
        wide = mine.astype(np.float64) - said
        return 1.0 - float(np.sum(wide * wide)) / self._spread


def _spread(units: list[Array]) -> float:
    """The mean over units of the squared distance of their numbers from the mean: of all units, or of their own."""
    wide = [unit.astype(np.float64).reshape(-1) for unit in units]
    if len(wide) > 1 and len({len(each) for each in wide}) == 1:
        center = np.mean(wide, axis=0)
        found = float(np.mean([np.sum((each - center) ** 2) for each in wide]))
    else:
        found = float(np.mean([np.sum((each - each.mean()) ** 2) for each in wide if each.size]))
    return found if found > 0 else float(np.mean([np.sum(each**2) for each in wide])) or 1.0
