"""What every index of every Dim costs, by `obs`: moments on most of the samples, sensitivities on the others.

An error that a re-fit leaves is seen too small on the samples that it was fitted on, and most so where a layer has many
columns and few positions: deep in a network. So what an error does to the outputs is measured on samples held aside.

A sensitivity tells what an error is worth while all else is whole. Where much goes, errors add up and later layers are
re-fitted around those before them, and the bare relative error says more. `trust` is how far the measurement counts:
1 is the loss as measured, 0 the relative error, between them their geometric mean. Which does best depends on the model
and the target, so it is best found by trying (`onnxprune.steps.staged`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.calibrate import Contraction, Observed, collect, contractions
from onnxprune.dims import Dim, DimInfo, Tracing, leaves
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.scores.obs import Consumer, Consumers, Curve
from onnxprune.scores.sensitivity import sensitivities

__all__ = ["TRUST", "SecondOrder", "second_order"]

TRUST = 0.5
ASIDE = 0.25
"""Of the samples, for the sensitivities."""
FEWEST = 16
"""With fewer samples all of them serve both."""


@dataclass(frozen=True, eq=False)
class SecondOrder:
    """The moments of all contractions that read Dims, and what errors in them are worth.

    Attributes:
        seen: Contractions with the moments of what they read.
        curves: For each of them the loss of the outputs by its relative squared error.
        dims: The Dims that may lose indices.
        fallback: Losses of indices of Dims that no contraction reads.
    """

    seen: Sequence[Observed]
    curves: Mapping[Contraction, Curve]
    dims: frozenset[Dim]
    fallback: Mapping[Dim, np.ndarray]

    def consumers(self, trust: float = TRUST) -> Consumers:
        """All consumers, whole, priced by sensitivities as far as they are trusted."""
        dims = set(self.dims)
        priced = [
            Consumer(each, self.curves[each.contraction].tempered(trust), dims)
            for each in self.seen
        ]
        return Consumers(priced, self.fallback)


def second_order(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    fallback: Mapping[Dim, np.ndarray],
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
) -> SecondOrder:
    """Gathers both in two walks through the model.

    Args:
        tracing: The model.
        dims: The Dims that may be cut.
        fallback: Losses of indices of Dims that no contraction reads.
        data: Samples.
        options: Seed and providers.
        progress: Where the walks are shown.
    """
    chosen = frozenset(info.dim for info in dims)
    wanted = [
        each
        for each in contractions(tracing)
        if any(dim in chosen for dim in leaves(each.input_axis))
    ]
    used, aside = hold_aside(data, ASIDE, options.seed) if len(data) >= FEWEST else (data, data)
    seen = collect(tracing, wanted, used, progress, options.providers, options.seed)
    curves = sensitivities(tracing, seen, set(chosen), aside, progress, options.providers)
    return SecondOrder(seen, curves, chosen, fallback)
