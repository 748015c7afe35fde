"""Which layers go: again and again the branch without which the outputs move least for what it saves.

Nothing is predicted. The model is run without each branch in turn, on a few samples, and held against the original, so
that a layer counts for what it does in the model that the others have left; of many layers some go at a time. Where the
model is to be repaired, the mean of the branch takes its place, as it will then.

That layers are redundant where leaving them out moves little: Men et al., "ShortGPT: layers in large language models
are more redundant than you expect", 2024, arXiv:2403.03853.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.walk import Walk
from onnxprune.plan.branches import Branch, left_out
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, affordable
from onnxprune.scores.moved import Outputs

__all__ = ["Try", "portion", "samples_to_look_at", "tried"]

SAMPLES, FEWEST = 64, 1
"""Samples that a layer is left out on at most, and at least."""
PORTIONS = 8
"""In how many portions layers go, about, where there are so many."""
WORK = 10**12
"""MACs in between, of all runs."""
SMALLEST = 1e-12


@dataclass(frozen=True, eq=False)
class Try:
    """What a model is without one of its layers.

    Attributes:
        branch: What is left out.
        mean: What takes its place, such as broadcasts; None: nothing.
        moved: How far the outputs are from the original's, see `onnxprune.scores.distance`.
        saved: What the model is smaller by.
    """

    branch: Branch
    mean: np.ndarray | None
    moved: float
    saved: float


def portion(layers: int) -> int:
    """How many of so many layers go before the others are looked at anew."""
    return max(1, layers // PORTIONS)


def samples_to_look_at(data: Dataset, layers: int, work: float) -> Dataset:
    """As many of the samples as the search among so many layers of a model can be asked to run.

    Args:
        data: The samples.
        layers: How many may go.
        work: MACs of the smallest feed.
    """
    runs = layers * min(layers, PORTIONS) / 2
    each = work / (data.fixed_batch or 1)
    return data.take(affordable(each * runs, WORK, FEWEST, SAMPLES))


def tried(
    model: ir.Model,
    found: Sequence[Branch],
    outputs: Outputs,
    saved: Callable[[ir.Model], float],
    progress: Progress,
    means: bool,
) -> list[Try]:
    """The model without each of its branches, that first which is missed least for what it saves.

    Args:
        model: The model.
        found: Its branches.
        outputs: The original's, with the samples.
        saved: What a model without a branch is smaller by.
        progress: Where it is shown.
        means: Whether branches leave their means behind.
    """
    averages = _means(model, found, outputs.data, outputs.providers) if means else None
    tries = []
    with progress.step("leaving out each layer", total=len(found)) as advance:
        for branch in found:
            without = left_out(model, [branch], averages)
            mean = None if averages is None else averages[branch.key]
            tries.append(Try(branch, mean, outputs.moved(without), saved(without)))
            advance(1)
    return sorted(tries, key=lambda each: each.moved / max(each.saved, SMALLEST))


def _means(
    model: ir.Model, found: Sequence[Branch], data: Dataset, providers: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """The mean of each branch by channel, as it broadcasts over the branch."""
    by_name = {output.name: output for node in model.graph for output in node.outputs}
    totals, counts = [np.zeros(())] * len(found), [0] * len(found)
    dtypes = [np.dtype(np.float32)] * len(found)
    walk = Walk(model, [data], providers)
    for batch in walk.values([by_name[branch.operand] for branch in found]):
        for k, (branch, array) in enumerate(zip(found, batch, strict=True)):
            axes = tuple(axis for axis in range(array.ndim) if axis != branch.axis)
            totals[k] = totals[k] + array.sum(axes, dtype=np.float64, keepdims=True)
            counts[k] += array.size // array.shape[branch.axis]
            dtypes[k] = array.dtype
    return {
        branch.key: np.asarray(total / count, dtype)
        for branch, total, count, dtype in zip(found, totals, counts, dtypes, strict=True)
    }
