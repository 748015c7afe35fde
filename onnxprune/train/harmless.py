"""Which ways to move images about leave their labels right, asked of a network that knows them.

A cat seen from the other side is a cat; a 6 is no 6, and a network that tells digits apart says so. So a way is
harmless where the network is about as often right about images that were moved as about those that were not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.scores.distance import scores_classes
from onnxprune.train.augment import augment
from onnxprune.validation.accuracy import accuracy_of

__all__ = ["harmless", "recognised"]

WAYS = ("flip", "crop")
LOSS = 0.02
"""Of the accuracy, that a harmless way may cost: it moves half of the images at least."""
SAMPLES = 1000
FEWEST = 100
"""With fewer, chance would say."""
BATCH = 32


def harmless(
    model: ir.Model, data: Dataset, providers: Sequence[str] = ("cpu",), seed: int = 0
) -> tuple[str, ...]:
    """The ways of `augment` that leave the labels of images right; none where that cannot be told.

    Args:
        model: A model that gives the labels of most samples.
        data: Samples with labels.
        providers: onnxruntime providers by name.
        seed: Of how they are moved.
    """
    if len(data) < FEWEST:
        return ()
    data = data.take(SAMPLES)
    made = session(model, providers)
    names = [value.name or "" for value in model.graph.outputs]

    def right(ways: Sequence[str]) -> float:
        random = np.random.default_rng([seed, 6])
        given = [run(made, augment(feed, ways, random)) for feed in data.batches(BATCH)]
        found = accuracy_of(names, given, data, BATCH)
        return found.value if found.metric.startswith("top") else float("nan")

    whole = right(())
    return tuple(way for way in WAYS if right((way,)) >= whole - LOSS)


def recognised(
    model: ir.Model,
    data: Dataset,
    ways: Sequence[str],
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> float:
    """The share of images that the network takes for what it took them for before they were moved.

    Args:
        model: A model whose first output holds scores of classes; of others the share is 0.
        data: Samples.
        ways: How they are moved, see `augment`.
        providers: onnxruntime providers by name.
        seed: Of how.
    """
    made, random = session(model, providers), np.random.default_rng([seed, 6])
    same = 0
    for feed in data.batches(BATCH):
        before, after = run(made, feed)[0], run(made, augment(feed, ways, random))[0]
        if not scores_classes(before):
            return 0.0
        rows = (scores.reshape(len(scores), -1).argmax(1) for scores in (before, after))
        same += int(np.equal(*rows).sum())
    return same / len(data)
