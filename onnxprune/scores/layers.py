"""Which layers go: again and again the branch without which the outputs move least for what it saves.

Nothing is predicted. The model is run without each branch in turn, on a few samples, and held against the original, so
that a layer counts for what it does in the model that the others have left; of many layers some go at a time. Where the
model is to be repaired, the mean of the branch takes its place, as it will then.

That layers are redundant where leaving them out moves little: Men et al., "ShortGPT: layers in large language models
are more redundant than you expect", 2024, arXiv:2403.03853.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Tracing, leaves
from onnxprune.graph.branches import Branch, left_out
from onnxprune.graph.cost import macs
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, affordable
from onnxprune.scores.moved import Outputs

__all__ = ["Looking", "Try", "looking_at", "portion", "tried"]

SAMPLES, FEWEST = 64, 1
"""Samples that a layer is left out on at most, and at least."""
AVERAGED, FEWEST_AVERAGED = 2000, 16
"""Samples that its mean is taken of at most, and at least."""
WORK = 10**12
"""MACs in between, of all runs."""
PORTIONS = 8
"""In how many portions layers go, about, where there are so many."""
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


@dataclass(frozen=True, eq=False)
class Looking:
    """What the search for layers looks at.

    Attributes:
        outputs: The original's, on some samples.
        data: The samples that means are taken of; None: layers leave nothing behind.
        axes: By the name of a value its axis of channels.
    """

    outputs: Outputs
    data: Dataset | None
    axes: Mapping[str, int]


def portion(layers: int) -> int:
    """How many of so many layers go before the others are looked at anew."""
    return max(1, layers // PORTIONS)


def looking_at(
    tracing: Tracing,
    layers: int,
    data: Dataset,
    means: bool,
    providers: Sequence[str],
    seed: int,
) -> Looking:
    """As many samples as a search can be asked to run, drawn at random.

    Args:
        tracing: The original.
        layers: How many may be left out.
        data: The samples.
        means: Whether branches leave their means behind.
        providers: onnxruntime providers by name.
        seed: Of which samples are looked at.
    """
    work = macs(tracing.model, tracing.measured.shapes) / (data.fixed_batch or 1)
    runs = layers * min(layers, PORTIONS) / 2
    order = np.random.default_rng(seed).permutation(len(data))
    used = data.subset(order).take(affordable(work * runs, WORK, FEWEST, SAMPLES))
    averaged = data.take(affordable(work * PORTIONS, WORK, FEWEST_AVERAGED, AVERAGED))
    outputs = Outputs(tracing.model, used, providers)
    return Looking(outputs, averaged if means else None, _channel_axes(tracing))


def _channel_axes(tracing: Tracing) -> dict[str, int]:
    """For each value the axis that most weights are along."""
    uses = {info.dim: len(info.slices) for info in tracing.dims}
    found = {}
    for value, axes in tracing.axes.items():
        if value.name and axes:
            along = [sum(uses.get(dim, 0) for dim in leaves(axis)) for axis in axes]
            found[value.name] = max(range(len(axes)), key=along.__getitem__)
    return found


def tried(
    model: ir.Model,
    found: Sequence[Branch],
    looking: Looking,
    saved: Callable[[ir.Model], float],
    progress: Progress,
) -> list[Try]:
    """The model without each of its branches, that first which is missed least for what it saves.

    Args:
        model: The model.
        found: Its branches.
        looking: What is looked at.
        saved: What a model without a branch is smaller by.
        progress: Where it is shown.
    """
    means = None if looking.data is None else _means(model, found, looking, looking.data)
    tries = []
    with progress.step("leaving out each layer", total=len(found)) as advance:
        for branch in found:
            without = left_out(model, [branch], means)
            mean = None if means is None else means[branch]
            moved = looking.outputs.moved(without)
            tries.append(Try(branch, mean, moved, saved(without)))
            advance(1)
    return sorted(tries, key=lambda each: each.moved / max(each.saved, SMALLEST))


def _means(
    model: ir.Model, found: Sequence[Branch], looking: Looking, data: Dataset
) -> dict[Branch, np.ndarray]:
    """The mean of each branch by channel, as it broadcasts over the branch."""
    sums = {node.outputs[0].name: node for node in model.graph if node.outputs}
    operands = [sums[branch.sum].inputs[branch.index] for branch in found]
    totals, counts = [np.zeros(())] * len(found), [0] * len(found)
    dtypes = [np.dtype(np.float32)] * len(found)
    walk = Walk(model, [data], looking.outputs.providers)
    for batch in walk.values([value for value in operands if value is not None]):
        for k, (branch, array) in enumerate(zip(found, batch, strict=True)):
            kept = looking.axes[branch.sum]
            axes = tuple(axis for axis in range(array.ndim) if axis != kept)
            totals[k] = totals[k] + array.sum(axes, dtype=np.float64, keepdims=True)
            counts[k] += array.size // array.shape[kept]
            dtypes[k] = array.dtype
    return {
        branch: np.asarray(total / count, dtype)
        for branch, total, count, dtype in zip(found, totals, counts, dtypes, strict=True)
    }
