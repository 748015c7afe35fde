"""Which indices go: scores of a criterion, and how far they carry under a sparsity or a target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, DimInfo, Keep, Tracing, cut
from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.options import PruneOptions
from onnxprune.plan.balance import balanced
from onnxprune.plan.budget import COSTS, Target
from onnxprune.plan.channels import channel_scores, choose, kept_counts, step_of
from onnxprune.plan.reach import Pace
from onnxprune.plan.saliency import channel_saliencies
from onnxprune.plan.second_order import Calibrations, Pricing
from onnxprune.plan.widths import shrink_to, shrink_to_counts
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.hardware import channel_step
from onnxprune.runtime.shelf import Kept
from onnxprune.sampling import signed_sums
from onnxprune.scores import Context, get_criterion
from onnxprune.scores.moved import Outputs
from onnxprune.scores.obs import Consumers

__all__ = ["Choice", "search"]


@dataclass(frozen=True, eq=False)
class Choice:
    """What is kept.

    Attributes:
        keep: Which indices each Dim keeps, where it loses some.
        fitted: Where a criterion knows, the weights that make up for what goes, by node of the model: (G, M, columns
            left).
    """

    keep: Keep
    fitted: Mapping[ir.Node, Kept] = field(default_factory=dict)

    def same(self, other: Choice) -> bool:
        """Whether the two keep the same."""
        return self.keep.keys() == other.keep.keys() and all(
            np.array_equal(mask, other.keep[dim]) for dim, mask in self.keep.items()
        )


def search(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
    dead: Keep | None = None,
    pricings: Sequence[Pricing] = (Pricing(),),
    calibrations: Calibrations | None = None,
) -> list[Choice]:
    """What each Dim keeps: one answer, or where widths are free and `obs` prices them, one for each pricing.

    Those that lead to the same are one. Where a criterion on gradients knows several ways, that one is taken whose
    outputs are nearest to the original's on the samples.

    Args:
        tracing: The model.
        dims: The Dims that may be cut.
        options: The criterion, and how far to go.
        data: Samples, for criteria that run the model.
        progress: Where long work is shown.
        dead: What stays of Dims with indices that go before all others.
        pricings: What errors are worth, see `onnxprune.plan.second_order`.
        calibrations: What an earlier search of the same model on the same data found.

    Raises:
        NothingToPruneError: The target is out of reach.
        OptionError: The criterion needs data, and there are none.
    """
    every: Iterator[tuple[Consumers, str | None]]
    if options.criterion == "obs":
        if data is None:
            raise OptionError("the criterion obs runs the model on samples: give some with --data")
        magnitude = channel_scores(tracing, dims, get_criterion("magnitude"), Context(options.seed))
        known = calibrations or Calibrations()
        priced = known(tracing, dims, _shares(magnitude), data, options, progress)
        free = options.target is not None or options.scope == "global"
        every = (
            (priced.consumers(each), each.saves) for each in (pricings if free else pricings[:1])
        )
    elif get_criterion(options.criterion).signed:
        sums = signed_sums(tracing, [info.dim for info in dims], options, data, progress)
        every = ((each, None) for each in sums)
    else:
        scores = channel_saliencies(tracing, dims, options, data, progress)
        dims = [info for info in dims if info.dim in scores]
        if options.target is None:
            return [Choice(choose(scores, _counts(tracing, dims, scores, options), dead))]
        every = iter([(Consumers([], _shares(scores)), None)])
    found, pace = list[Choice](), Pace(tracing, options.providers)
    for each, saves in every:
        choice = _chosen(tracing, dims, options, each, saves, pace, progress, dead or {})
        if not any(choice.same(other) for other in found):
            found.append(choice)
    if len(found) > 1 and options.criterion != "obs" and data is not None:
        outputs = Outputs(tracing.model, data, options.providers)
        with progress.step("trying"):
            return [min(found, key=lambda choice: outputs.moved(cut(tracing, choice.keep)))]
    return found


def _chosen(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    consumers: Consumers,
    saves: str | None,
    pace: Pace,
    progress: Progress,
    dead: Keep,
) -> Choice:
    """What is left once enough has gone, the dead first."""
    for dim, mask in dead.items():
        if dim in consumers.left:
            consumers.remove(dim, np.flatnonzero(~mask))
    if options.target is not None:
        _reach(tracing, dims, options, options.target, consumers, saves, pace, progress)
    else:
        with progress.step("choosing channels"):
            losses = (
                {info.dim: consumers.losses(info.dim) for info in dims}
                if options.scope == "global"
                else {}
            )
            shrink_to_counts(consumers, _counts(tracing, dims, losses, options))
    return Choice(consumers.keep(), consumers.fitted())


def _counts(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    scores: Mapping[Dim, np.ndarray],
    options: PruneOptions,
) -> dict[Dim, int]:
    """How many indices each Dim keeps under a sparsity."""
    counts = kept_counts(dims, scores, options)
    if options.round_to is not None:
        return counts
    block = channel_step()
    in_blocks = [info.dim for info in dims if step_of(info, options) == block]
    return balanced(tracing, counts, block, in_blocks, options.min_channels)


def _shares(scores: Mapping[Dim, np.ndarray]) -> dict[Dim, np.ndarray]:
    """Saliencies as shares of their Dim's energy, comparable with relative errors."""
    squares = {dim: each**2 for dim, each in scores.items()}
    return {dim: each / max(float(each.sum()), 1e-30) for dim, each in squares.items()}


def _reach(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    target: Target,
    consumers: Consumers,
    saves: str | None,
    pace: Pace,
    progress: Progress,
) -> None:
    saved = replace(target, kind=saves or target.kind)
    steps = {info.dim: step_of(info, replace(options, target=saved)) for info in dims}
    least = {info.dim: options.min_channels for info in dims}
    with progress.step("choosing channels", total=sum(info.size for info in dims)) as advance:
        if target.kind == "latency":
            left = pace.reach(consumers, target.value, steps, least, saved.kind, advance)
        else:
            cost = COSTS[target.kind](tracing)
            left = shrink_to(consumers, cost, target.value, steps, least, advance)
    if left > target.value:
        raise NothingToPruneError(
            f"the target {target} is out of reach: with everything cut that may be, {left:.3f} of the {target.kind} are"
            " left; see `onnxprune inspect` for what is frozen and why"
        )
