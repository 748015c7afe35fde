"""Running a gradient model over a data set, one sample after the other.

Statistics of gradients are of single samples: the mean of squares is not the square of a mean. So every run sees one
sample; a model that insists on a batch of B gets the sample B times, and its gradients are divided by B. That is right
wherever the entries of a batch do not see each other, as in every model that is not normalised over its batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnxruntime as ort

from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run
from onnxprune.sampling.objective import LABELS, Objective

__all__ = ["Answers", "samples", "stream"]

KEPT = 1 << 26
"""Bytes of answers that are kept."""

Array = np.ndarray
Feed = dict[str, Array]


class Answers:
    """What a loss is fed for each sample: kept, so that a sample that comes again needs no run of the model for it.

    Args:
        goal: The loss.
    """

    def __init__(self, goal: Objective) -> None:
        self.goal = goal
        self._kept: dict[tuple[int, int], Feed] = {}
        self._room = KEPT

    def of(self, number: int, feed: Feed, labels: Array | None, draw: int) -> Feed:
        """See `Objective.answers`; samples are told apart by their number."""
        known = self._kept.get((number, draw))
        if known is not None:
            return known
        found = self.goal.answers(feed, labels, draw)
        self._room -= sum(array.nbytes for array in found.values())
        if self._room >= 0:
            self._kept[number, draw] = found
        return found


def samples(data: Dataset) -> Iterator[tuple[Feed, Array | None, int]]:
    """Every sample as a feed of its own, its labels, and how often it is in the feed."""
    times = 1 if data.stacked else data.fixed_batch or 1
    for k in range(len(data)):
        rows = slice(k, k + 1)
        if data.stacked:
            feed = data.feed(rows)
        else:
            feed = {
                name: np.repeat(array[rows], times, axis=0) for name, array in data.inputs.items()
            }
        labels = None if data.labels is None else np.repeat(data.labels[rows], times, axis=0)
        yield feed, labels, times


def stream(
    made: ort.InferenceSession,
    answers: Answers,
    data: Dataset,
    progress: Progress,
    more: Mapping[str, Array] | None = None,
) -> Iterator[list[Array]]:
    """What a gradient model gives for each sample (and each draw of it).

    Args:
        made: A session of a model made by `onnxprune.autodiff.gradient` with the loss that the answers are for.
        answers: Feed the loss.
        data: The samples, in any order.
        progress: Where it is shown.
        more: Inputs that are the same for every sample.

    Yields:
        The loss and the gradients, each as if the sample had been alone.
    """
    names = [output.name for output in made.get_outputs()]
    takes = {value.name: value for value in made.get_inputs()}
    with progress.step("sampling gradients", total=len(data)) as advance:
        for number, (feed, labels, times) in enumerate(samples(data)):
            fed = {**(more or {})} | {name: array for name, array in feed.items() if name in takes}
            for draw in range(answers.goal.draws):
                for name, array in answers.of(number, feed, labels, draw).items():
                    fed[name] = _fitted(array, takes[name], times) if name == LABELS else array
                found = run(made, fed, names)
                yield found if times == 1 else [array / times for array in found]
            advance(1)


def _fitted(labels: Array, value: ort.NodeArg, times: int) -> Array:
    """Labels in the type and shape that the loss takes them."""
    kind = {"tensor(int64)": np.int64, "tensor(double)": np.float64, "tensor(float16)": np.float16}
    whole = labels.astype(kind.get(value.type, np.float32))
    sizes = [size if isinstance(size, int) else -1 for size in value.shape]
    if sizes.count(-1) > 1:
        sizes[0] = times
    return whole.reshape(sizes) if sizes.count(-1) < 2 else whole
