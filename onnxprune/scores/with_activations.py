"""Criteria on what channels carry, and other criteria of whole channels.

With x what a contraction reads and w its weights:

1. `wanda`: |w| ||x||_2 of the input that the weight multiplies (Sun et al., "A simple and effective pruning approach
   for large language models", ICLR 2024); pooled as squares: what a channel gives if inputs are uncorrelated.
2. `activation`: mean |x| of the channel (Molchanov et al., "Pruning convolutional neural networks for resource
   efficient inference", ICLR 2017).
3. `entropy`: of each sample's mean of the channel, binned between its extremes: how much the channel tells samples
   apart (Luo, Wu, "An entropy-based pruning method for CNN compression", arXiv 1706.05791, 2017).
4. `bn-scale`: |gamma| of the BatchNormalizations that the channel passes (Liu et al., "Learning efficient convolutional
   networks through network slimming", ICCV 2017). Channels that pass none stay.
5. `fpgm`: the distance of a filter to all others of its layer, small near their geometric median (He et al., "Filter
   pruning via geometric median", CVPR 2019).

2 to 5 score the indices of Dims: the mean over all tensors that have the Dim, each relative to its own mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from onnxprune.calibrate.activations import Activations
from onnxprune.calibrate.contraction import contractions, data_axis
from onnxprune.dims import Axis, Dim, Tracing, leaves, positions, size
from onnxprune.scores.criterion import Array, Context, channel_criterion, criterion

__all__: list[str] = []

Along = Iterator[tuple[Axis, Array]]
"""An axis, and what each of its positions is worth."""


@criterion(
    "wanda",
    summary="|w| times the L2 norm of what it multiplies",
    power=2,
    needs_data=True,
    statistic="input_norm",
)
def _wanda(name: str, values: Array, context: Context) -> Array:
    return np.abs(values) * context.statistic("input_norm", name)


@channel_criterion("activation", summary="mean |x| of a channel", needs_data=True)
def _activation(tracing: Tracing, dims: set[Dim], seen: Sequence[Activations]) -> dict[Dim, Array]:
    return _mean(((data_axis(a.contraction, tracing), a.magnitude) for a in seen), dims)


@channel_criterion("entropy", summary="entropy of a channel's mean over samples", needs_data=True)
def _entropy(tracing: Tracing, dims: set[Dim], seen: Sequence[Activations]) -> dict[Dim, Array]:
    return _mean(((data_axis(a.contraction, tracing), entropies(a.means)) for a in seen), dims)


@channel_criterion("bn-scale", summary="|gamma| of a channel's BatchNormalizations")
def _bn_scale(tracing: Tracing, dims: set[Dim], _seen: Sequence[Activations]) -> dict[Dim, Array]:
    scales = (
        (use.axes[0], np.abs(np.asarray(use.weight.array(), np.float64)))
        for use in tracing.uses
        if use.node is not None and use.node.op_type == "BatchNormalization" and use.index == 1
    )
    return _mean(scales, dims)


@channel_criterion("fpgm", summary="distance of a filter to the others of its layer")
def _fpgm(tracing: Tracing, dims: set[Dim], _seen: Sequence[Activations]) -> dict[Dim, Array]:
    def filters() -> Along:
        for each in contractions(tracing, most=None):
            if dims.intersection(leaves(each.output_axis)):
                matrix = each.matrix(each.view.read())
                if (
                    each.kind == "recurrent"
                ):  # a unit's gates are rows of one axis, whatever the direction
                    matrix = matrix.transpose(1, 0, 2)
                rows = matrix.reshape(size(each.output_axis), -1)
                yield each.output_axis, distances(rows)

    return _mean(filters(), dims)


def entropies(samples: Array) -> Array:
    """Entropy in nats of each column of (samples, channels), in about sqrt(samples) bins between its extremes."""
    count, bins = len(samples), math.isqrt(len(samples) - 1) + 1
    low, high = samples.min(0), samples.max(0)
    span = np.where(high > low, high - low, 1)
    where = np.minimum(((samples - low) / span * bins).astype(np.intp), bins - 1)
    shares = np.stack([(where == k).sum(0) for k in range(bins)]) / count
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    return np.asarray(-(shares * logs).sum(0))


def distances(rows: Array) -> Array:
    """The sum of each row's distances to all rows, float64."""
    squares = (rows**2).sum(1)
    between = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
    return np.asarray(np.sqrt(np.maximum(between, 0)).sum(1))


def _mean(found: Along, dims: set[Dim]) -> dict[Dim, Array]:
    """By Dim the mean over axes, each relative to the mean of the Dim there."""
    total: dict[Dim, Array] = {}
    for axis, worth in found:
        for dim in dims.intersection(leaves(axis)):
            score = np.zeros(dim.size)
            for row in positions(axis, dim):
                score += np.bincount(row[row >= 0], worth[row >= 0], minlength=dim.size)
            mean = float(score.mean())
            total[dim] = total.get(dim, np.zeros(dim.size)) + (score / mean if mean > 0 else score)
    return total
