"""Agreement with the original: its own answers are the right ones.

A unit is a sample where the outputs have the samples along their first axis; else (states, sequences, boxes that are
left over) a whole feed of the smallest size. The first output that holds class scores is compared by its decisions, the
share of a unit's that are the same; where none does, the first of floats by 1 less its squared error over the variance
of the original's numbers, as R2 has it; where there are none, the first of integers by the share that is the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime as ort

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run
from onnxprune.sampling.objective import own_classes

__all__ = ["OwnAnswers"]

Array = np.ndarray


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
        scores = [k for k, axis in axes.items() if axis is not None]
        floats = [k for k, array in outputs.items() if array.dtype.kind == "f"]
        self.output = [*scores, *floats, *outputs][0]
        self.axis = axes[self.output]
        self._numbers = not scores and bool(floats)
        self.metric = "R2" if self._numbers else "agreement"
        count = rows.stop - rows.start
        self._apart = outputs[self.output].shape[:1] == (count,) and not data.stacked
        self._data, self._batch = data, batch if self._apart else 1
        self._said = list(self._answers(made))
        self._spread = _spread(self._said) if self._numbers else 1.0

    def __call__(self, made: ort.InferenceSession) -> Array:
        """The scores of a model, (units,): 1 where it says what the original says."""
        return np.array(
            [
                self._score(mine, said)
                for mine, said in zip(self._answers(made), self._said, strict=True)
            ]
        )

    def _answers(self, made: ort.InferenceSession) -> Iterator[Array]:
        """What a model answers to each unit."""
        for rows in self._data.batch_rows(self._batch):
            output = run(made, self._data.feed(rows))[self.output]
            answer = output if self.axis is None else output.argmax(self.axis)
            yield from answer if self._apart else [answer]

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
