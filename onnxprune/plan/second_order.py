"""What every index of every Dim costs, by `obs`: moments on most of the samples, sensitivities on the others.

An error that a re-fit leaves is seen too small on the samples that it was fitted on, and most so where a layer has many
columns and few positions: deep in a network. So what an error does to the outputs is measured on samples held aside.
What it does in a model that was cut from another is taken to be what it did there.

A sensitivity tells what an error is worth while all else is whole. Where much goes, errors add up and later layers are
re-fitted around those before them, and the bare relative error says more. `trust` is how far the measurement counts:
1 is the loss as measured, 0 the relative error, between them their geometric mean. `tilt` is chance on top: each
consumer's price times a random factor. Which does best depends on the model and the target, so it is best found by
trying (`onnxprune.steps.trials`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Contraction, collect, contractions
from onnxprune.dims import Dim, DimInfo, Keep, Tracing, leaves
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.shelf import Shelf
from onnxprune.scores.obs import Consumer, Consumers, Curve, Fitted
from onnxprune.scores.sensitivity import sensitivities

__all__ = ["Calibrations", "Pricing", "SecondOrder", "second_order"]

ASIDE = 0.25
"""Of the samples, for the sensitivities."""
FEWEST = 16
"""With fewer samples all of them serve both."""
MEMORY = 512 << 20
"""Bytes of weights and of inverse moments held; where there are more, the others wait in temporary files."""


@dataclass(frozen=True)
class Pricing:
    """What an error in a consumer is worth, and worth saving what.

    Attributes:
        trust: How far the measured sensitivity counts, from 0 to 1.
        tilt: Standard deviation of the logarithm of the factor on each price.
        seed: Of the factors.
        saves: What it is held against, see `onnxprune.plan.budget`; None: what the target counts.
    """

    trust: float = 0.5
    tilt: float = 0.0
    seed: int = 0
    saves: str | None = None


@dataclass(frozen=True, eq=False)
class SecondOrder:
    """All contractions that read Dims, and what errors in them are worth.

    Attributes:
        whole: All consumers, with nothing gone.
        curves: For each of them the loss of the outputs by its relative squared error.
        fallback: Losses of indices of Dims that no contraction reads.
    """

    whole: Sequence[Consumer]
    curves: Mapping[Contraction, Curve]
    fallback: Mapping[Dim, np.ndarray]

    def consumers(self, pricing: Pricing) -> Consumers:
        """All consumers, whole, priced."""
        random = np.random.default_rng(pricing.seed)
        factors = np.exp(pricing.tilt * random.standard_normal(len(self.whole)))
        priced = [
            each.priced(self.curves[each.contraction].tempered(pricing.trust, float(factor)))
            for each, factor in zip(self.whole, factors, strict=True)
        ]
        return Consumers(priced, self.fallback)

    def over(self, dims: Collection[Dim], fallback: Mapping[Dim, np.ndarray]) -> SecondOrder:
        """The same where only some of the Dims may be cut."""
        whole = [each.over(dims) for each in self.whole]
        return SecondOrder([each for each in whole if each.columns], self.curves, fallback)

    def made_up(self, keep: Keep) -> dict[ir.Node, Fitted]:
        """What makes up for indices that others have chosen, by node."""
        consumers = self.consumers(Pricing())
        for dim, mask in keep.items():
            if dim in consumers.left:
                consumers.remove(dim, np.flatnonzero(~mask))
        return consumers.fitted()


def second_order(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    fallback: Mapping[Dim, np.ndarray],
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
    known: Mapping[str, Curve] | None = None,
) -> SecondOrder:
    """Gathers both in two walks through the model.

    Args:
        tracing: The model.
        dims: The Dims that may be cut.
        fallback: Losses of indices of Dims that no contraction reads.
        data: Samples.
        options: Seed and providers.
        progress: Where the walks are shown.
        known: Curves of contractions by the name of what they give, where they need not be measured.
    """
    chosen = frozenset(info.dim for info in dims)
    wanted = [
        each
        for each in contractions(tracing)
        if any(dim in chosen for dim in leaves(each.input_axis))
    ]
    used, aside = hold_aside(data, ASIDE, options.seed) if data.can_spare(FEWEST) else (data, data)
    shelf = Shelf(MEMORY)
    seen = collect(tracing, wanted, used, progress, options.providers, options.seed)
    whole = [Consumer(each, Curve(), chosen, shelf) for each in seen]
    found = {each.contraction: (known or {}).get(each.contraction.name) for each in whole}
    curves = {contraction: curve for contraction, curve in found.items() if curve is not None}
    new = [each for each in whole if each.contraction not in curves]
    if new:
        curves.update(sensitivities(tracing, new, aside, progress, options.providers))
    return SecondOrder(whole, curves, fallback)


class Calibrations:
    """What `second_order` found, kept as long as it is asked about the same Dims of the same model, or some of them.

    One of these goes with one data set and one seed.

    Args:
        curves: Curves of contractions by the name of what they give, measured in the model that this one was cut from.
    """

    def __init__(self, curves: Mapping[str, Curve] | None = None) -> None:
        self._known: tuple[frozenset[Dim], SecondOrder] | None = None
        self._curves = curves or {}

    def __call__(
        self,
        tracing: Tracing,
        dims: Sequence[DimInfo],
        fallback: Mapping[Dim, np.ndarray],
        data: Dataset,
        options: PruneOptions,
        progress: Progress,
    ) -> SecondOrder:
        """See `second_order`."""
        chosen = frozenset(info.dim for info in dims)
        if self._known is None or not chosen <= self._known[0]:
            found = second_order(tracing, dims, fallback, data, options, progress, self._curves)
            self._known = (chosen, found)
        known, found = self._known
        return found if chosen == known else found.over(chosen, fallback)

    @property
    def curves(self) -> dict[str, Curve]:
        """What errors in contractions are worth, by the name of what they give."""
        found = {} if self._known is None else self._known[1].curves
        return {contraction.name: curve for contraction, curve in found.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """Which Dims no moments tell of, and which layers saw fewer rows of the data than they have columns."""
        return () if self._known is None else (*self._unread(*self._known), *self._few())

    def _unread(self, chosen: frozenset[Dim], found: SecondOrder) -> tuple[str, ...]:
        unread = chosen.difference(*(each.columns for each in found.whole))
        if not unread:
            return ()
        return (
            f"{len(unread)} of {len(chosen)} Dims are ranked by magnitude: what reads them is no plain layer, or one"
            " in a branch or loop",
        )

    def _few(self) -> tuple[str, ...]:
        seen = () if self._known is None else self._known[1].whole
        few = [each for each in seen if each.rows_met < each.contraction.columns]
        if not few:
            return ()
        worst = min(few, key=lambda each: each.rows_met / each.contraction.columns)
        name, columns = worst.contraction.view.source.name, worst.contraction.columns
        return (
            f"few samples: {name!r} reads {columns} numbers at once and met {worst.rows_met} rows of them in the data"
            f" ({len(few)} of {len(seen)} layers met fewer rows than they read numbers): more samples would tell more",
        )
