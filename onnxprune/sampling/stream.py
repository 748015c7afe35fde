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

__all__ = ["samples", "stream"]

Array = np.ndarray
Feed = dict[str, Array]


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
    goal: Objective,
    data: Dataset,
    progress: Progress,
    more: Mapping[str, Array] | None = None,
) -> Iterator[list[Array]]:
    """What a gradient model gives for each sample (and each draw of it).

    Args:
        made: A session of a model made by `onnxprune.autodiff.gradient` with the loss of `goal`.
        goal: Feeds the loss.
        data: The samples, in any order.
        progress: Where it is shown.
        more: Inputs that are the same for every sample.

    Yields:
        The loss and the gradients, each as if the sample had been alone.
    """
    names = [output.name for output in made.get_outputs()]
    takes = {value.name: value for value in made.get_inputs()}
    with progress.step("sampling gradients", total=len(data)) as advance:
        for feed, labels, times in samples(data):
            fed = {**(more or {})} | {name: array for name, array in feed.items() if name in takes}
            for draw in range(goal.draws):
                for name, array in goal.answers(feed, labels, draw).items():
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
