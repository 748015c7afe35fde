"""Which indices go: scores of a criterion, and how far they carry under a sparsity or a target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, DimInfo, Keep, Tracing, cut
from onnxprune.errors import OnnxPruneError, OptionError, OutOfReachError
from onnxprune.options import PruneOptions, Target
from onnxprune.plan.balance import balanced
from onnxprune.plan.budget import COSTS
from onnxprune.plan.channels import choose, kept_counts
from onnxprune.plan.gradients import signed_sums
from onnxprune.plan.reach import Pace
from onnxprune.plan.recipe import Recipe
from onnxprune.plan.rounding import Blocks, step_of
from onnxprune.plan.saliency import channel_saliencies
from onnxprune.plan.second_order import Calibrations
from onnxprune.plan.widths import (
    SLACK,
    round_down,
    shrink_evenly,
    shrink_to,
    shrink_to_counts,
    widened,
)
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.hardware import channel_step
from onnxprune.scores import get_criterion
from onnxprune.scores.moved import Outputs
from onnxprune.scores.obs import Consumers, Fitted

__all__ = ["Choice", "check_reachable", "search"]

Start = Callable[[], Consumers]
"""What makes what every index costs, before any has gone."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What is kept.

    Attributes:
        keep: Which indices each Dim keeps, where it loses some.
        fitted: Where a criterion knows, what makes up for what goes, by node of the model.
        way: How it was chosen, in words.
    """

    keep: Keep
    fitted: Mapping[ir.Node, Fitted] = field(default_factory=dict)
    way: str = ""

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
    recipes: Sequence[Recipe] | None = None,
    calibrations: Calibrations | None = None,
) -> list[Choice]:
    """What each Dim keeps: one answer for each recipe; those that come to the same are one.

    Where a criterion on gradients knows several ways, that one is taken whose outputs are nearest to the original's on
    the samples.

    Args:
        tracing: The model.
        dims: The Dims that may be cut.
        options: The criterion, and how far to go.
        data: Samples, for criteria that run the model.
        progress: Where long work is shown.
        dead: What stays of Dims with indices that go before all others.
        recipes: Ways to choose; None: the one that the options name. Of several, those that cannot be carried out here
            are left out.
        calibrations: What an earlier search of the same model on the same data found.

    Raises:
        OutOfReachError: The target is out of reach.
        OptionError: The criterion needs data, and there are none.
    """
    recipes = recipes or [Recipe(options.criterion, options.scope)]
    second_order = None
    if any(recipe.criterion == "obs" for recipe in recipes):
        if data is None:
            raise OptionError("the criterion obs runs the model on samples: give some with --data")
        bare = replace(options, criterion="magnitude")
        shares = _shares(channel_saliencies(tracing, dims, bare, data, progress))
        known = calibrations or Calibrations()
        second_order = known(tracing, dims, shares, data, options, progress)
    found, failed = list[Choice](), list[OnnxPruneError]()
    pace = Pace(tracing, options.providers)
    for recipe in recipes:
        one = replace(options, criterion=recipe.criterion)
        try:
            if recipe.criterion == "obs":
                assert second_order is not None
                every: Sequence[Start] = [partial(second_order.consumers, recipe.pricing)]
            elif get_criterion(recipe.criterion).signed:
                every = signed_sums(tracing, [info.dim for info in dims], one, data, progress)
            else:
                scores = channel_saliencies(tracing, dims, one, data, progress)
                if options.target is None:
                    mine = [info for info in dims if info.dim in scores]
                    return [Choice(choose(scores, _counts(tracing, mine, scores, one), dead))]
                every = [partial(Consumers, [], _shares(scores))]
            ends = [
                _chosen(tracing, dims, options, recipe, each, pace, progress, dead or {})
                for each in every
            ]
        except OnnxPruneError as error:  # such as no gradient, or out of reach with equal shares
            failed.append(error)
            continue
        choice = _nearest(tracing, ends, options, data, progress)
        if any(choice.same(other) for other in found):
            continue
        if second_order is not None and recipe.criterion != "obs":
            choice = replace(choice, fitted=second_order.made_up(choice.keep))
        found.append(choice)
    if not found:
        raise failed[0]
    return found


def check_reachable(tracing: Tracing, dims: Sequence[DimInfo], options: PruneOptions) -> None:
    """Whether the narrowest widths that are allowed reach the target, as far as that can be told without measuring.

    Raises:
        OutOfReachError: They do not.
    """
    target = options.target
    if target is None or target.kind not in COSTS:
        return
    cost = COSTS[target.kind](tracing)
    narrowest = {info.dim: min(info.size, options.min_channels) for info in dims}
    left = cost.total(narrowest) / cost.total({})
    if left > target.value:
        raise OutOfReachError(target, left, target.kind)


def _nearest(
    tracing: Tracing,
    ends: Sequence[Choice],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> Choice:
    """Of several ends of one recipe that whose outputs are nearest to the original's on the samples."""
    if data is None or all(ends[0].same(other) for other in ends[1:]):
        return ends[0]
    outputs = Outputs(tracing.model, data, options.providers)
    with progress.step("trying"):
        return min(ends, key=lambda choice: outputs.moved(cut(tracing, choice.keep)))


def _chosen(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    recipe: Recipe,
    start: Start,
    pace: Pace,
    progress: Progress,
    dead: Keep,
) -> Choice:
    """What is left once enough has gone, the dead first."""

    def begun() -> Consumers:
        consumers = start()
        for dim, mask in dead.items():
            if dim in consumers.left:
                consumers.remove(dim, np.flatnonzero(~mask))
        consumers.gone.clear()
        return consumers

    consumers = begun()
    dims = [info for info in dims if info.dim in consumers.left]
    if options.target is not None:
        counts = _reach(tracing, dims, options, options.target, recipe, consumers, pace, progress)
        if counts != {dim: len(left) for dim, left in consumers.left.items()}:
            consumers = begun()
            shrink_to_counts(consumers, counts)
    else:
        with progress.step("choosing channels"):
            losses = (
                {info.dim: consumers.losses(info.dim) for info in dims}
                if options.scope == "global"
                else {}
            )
            shrink_to_counts(consumers, _counts(tracing, dims, losses, options))
    return Choice(consumers.keep(), consumers.fitted(), str(recipe))


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


def _limits(
    dims: Sequence[DimInfo], options: PruneOptions, blocks: Blocks | None
) -> tuple[dict[Dim, int], dict[Dim, int]]:
    """What Dims keep a multiple of, and how much at least."""
    steps = {info.dim: step_of(info, options) for info in dims}
    least = {info.dim: options.min_channels for info in dims}
    asked = {} if blocks is None else blocks.asked(dims)
    if blocks is None or blocks.last:
        return steps | asked, least
    free = dict.fromkeys(asked, 1)
    return steps | free, least | {dim: max(step, least[dim]) for dim, step in asked.items()}


def _reach(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    target: Target,
    recipe: Recipe,
    consumers: Consumers,
    pace: Pace,
    progress: Progress,
) -> dict[Dim, int]:
    """Removes what reaches a target, and says how many indices each Dim may keep then: more, where steps are coarse."""
    saved = replace(target, kind=recipe.pricing.saves or target.kind)
    steps, least = _limits(dims, replace(options, target=saved), recipe.blocks)
    if recipe.blocks is not None and recipe.blocks.last:
        round_down(consumers, recipe.blocks.asked(dims))
    with progress.step("choosing channels", total=sum(info.size for info in dims)) as advance:
        if target.kind == "latency":
            left = pace.reach(consumers, target.value, steps, least, saved.kind, advance)
            cost = None
        else:
            cost = COSTS[target.kind](tracing)
            shrink = shrink_to if recipe.scope == "global" else shrink_evenly
            left = shrink(consumers, cost, target.value, steps, least, advance)
    if left > target.value:
        raise OutOfReachError(target, left, target.kind)
    if cost is None or left > (1 - SLACK) * target.value:
        return {dim: len(each) for dim, each in consumers.left.items()}
    return widened(consumers, cost, target.value, steps)
