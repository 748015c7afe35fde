"""What every further cut of a Dim costs, all else whole: the curve behind the widths that a target ends with.

The indices that are missed least go first, consumers make up for them as far as they can (see `onnxprune.scores.obs`),
and what error is left is worth what it was measured to do to the outputs (`onnxprune.scores.sensitivity`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.dims import Dim, DimInfo, Tracing
from onnxprune.options import PruneOptions
from onnxprune.plan.second_order import SecondOrder, second_order
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.scores.obs import Consumers

__all__ = ["CUTS", "losses_by_dim"]

CUTS = tuple(k / 16 for k in range(1, 16))
"""Shares of a Dim that are removed."""


def losses_by_dim(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    data: Dataset,
    progress: Progress,
) -> dict[Dim, tuple[float, ...]]:
    """The loss of the outputs at each of `CUTS`, for every Dim that a contraction reads.

    Of scores of classes it is a Kullback-Leibler divergence in nats, of other outputs the squared change relative to
    their variance (`onnxprune.scores.distance`).

    Args:
        tracing: The model.
        dims: The Dims that may be cut.
        options: Seed and providers.
        data: Samples, without labels.
        progress: Where long work is shown.
    """
    fallback = {info.dim: np.zeros(info.size) for info in dims}
    priced = second_order(tracing, dims, fallback, data, options, progress)
    found = {}
    with progress.step("cutting each Dim alone", total=len(dims)) as advance:
        for info in dims:
            losses = _losses(priced, info.dim)
            if losses:
                found[info.dim] = losses
            advance(1)
    return found


def _losses(priced: SecondOrder, dim: Dim) -> tuple[float, ...]:
    """The loss at each of `CUTS`, rising; nothing where no contraction reads the Dim."""
    every = [
        each.priced(priced.curves[each.contraction]) for each in priced.whole if dim in each.columns
    ]
    consumers = Consumers(every, {dim: priced.fallback[dim]})
    if not consumers.of[dim]:
        return ()
    lost, found = 0.0, []
    for share in CUTS:
        count = min(round(share * dim.size), dim.size - 1) - (dim.size - len(consumers.left[dim]))
        if count > 0:
            lost += consumers.remove(dim, consumers.cheapest(dim, count)[0])
        found.append(lost)
    return tuple(found)
