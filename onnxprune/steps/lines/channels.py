"""Channels are cut out, step after step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, cut, trace
from onnxprune.errors import NothingToPruneError, OutOfReachError, ValidationError
from onnxprune.graph import clone
from onnxprune.graph.cost import params
from onnxprune.options import PruneOptions, Target
from onnxprune.plan.budget import COSTS
from onnxprune.plan.channels import candidates, macs_left
from onnxprune.plan.compose import compose
from onnxprune.plan.reach import Stopwatch
from onnxprune.plan.recipe import Recipe
from onnxprune.plan.rounding import Blocks, blocks_of
from onnxprune.plan.search import check_reachable
from onnxprune.progress import Progress
from onnxprune.recover import compensate
from onnxprune.report import Cost, build
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure
from onnxprune.steps.channels import Ready, alternatives, ready
from onnxprune.steps.dead import without_dead
from onnxprune.steps.lines.line import Stage, check_shapes, cut_only
from onnxprune.steps.outcome import Outcome, channels_plan
from onnxprune.steps.repair import repair
from onnxprune.steps.training import kept_places
from onnxprune.train.blocks import Kept
from onnxprune.validation.proof import prove

__all__ = ["Channels", "ChannelsKept"]

ChannelsKept = dict[Dim, np.ndarray]


class Channels:
    """Channels are cut out. What is gone is told by what is kept of each Dim of the original.

    The original is that with constant channels folded into biases, where the options allow it: the same function.

    Raises:
        NothingToPruneError: No Dim can be cut.
        OutOfReachError: Not enough of them for the target.
    """

    def __init__(self, model: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.options = options
        self.measured = measure(model, {**data.shapes_of_one, **options.shapes})
        self.dead = without_dead(trace(model, self.measured), options)
        self.tracing = self.dead.tracing
        self._watch: Stopwatch | None = None
        self._first: tuple[Dataset, Ready] | None = None
        dims = candidates(self.tracing, options)
        if not dims and not self.dead.keep:
            raise NothingToPruneError(build.nothing_to_prune(self.tracing, options))
        check_reachable(self.tracing, dims, options)

    def start(self) -> Stage[ChannelsKept]:
        """See `Line`."""
        return Stage(self.tracing.model, {})

    def further(
        self,
        stage: Stage[ChannelsKept],
        amount: float,
        data: Dataset,
        progress: Progress,
        clock: Clock,
    ) -> Stage[ChannelsKept]:
        """See `Line`."""
        return self.alternatives(stage, amount, data, progress, clock)[0]

    def alternatives(
        self,
        stage: Stage[ChannelsKept],
        amount: float,
        data: Dataset,
        progress: Progress,
        clock: Clock,
        recipes: Sequence[Recipe] | None = None,
        *,
        last: bool = True,
    ) -> list[Stage[ChannelsKept]]:
        """The next model, cut in different ways, see `onnxprune.steps.channels.alternatives`.

        Where a re-fit is to follow, what the criterion knows to make up for the indices that went is in it already.
        Of several stages only the last has the widths that the original's kernels like.
        """
        options = self._remaining(stage, amount)
        if options is None:
            return [Stage(clone(stage.model), stage.gone)]
        if recipes is not None:
            blocks = Blocks(blocks_of(candidates(self.tracing, options), options), last)
            recipes = [replace(recipe, blocks=blocks) for recipe in recipes]
        try:
            ground = self._ready(stage, data, options, clock)
            every = alternatives(ground, data, options, progress, clock, recipes)
        except OutOfReachError as error:  # of the stage's model; the user knows the original
            target = None if self.options.limits_drop else self.options.target
            wanted = target or Target(error.kind, 1.0 - amount)
            raise OutOfReachError(wanted, error.left * self.left(stage), error.kind) from error
        except NothingToPruneError:
            if self.options.target is None:  # after rounding; a later step may be large enough
                return [Stage(clone(stage.model), stage.gone)]
            raise
        found = []
        for done in every:
            assert done.tracing is not None
            gone = compose(self.tracing, stage.gone, done.tracing, done.keep)
            if self.options.recover in ("lstsq", "finetune"):
                compensate(done.tracing, done.keep, done.pruned, done.fitted)
            found.append(Stage(done.pruned, gone, done.notes, done.way))
        return found

    def _ready(
        self, stage: Stage[ChannelsKept], data: Dataset, options: PruneOptions, clock: Clock
    ) -> Ready:
        """The stage's model ready to be cut; of the original it is kept, and what errors are worth there for all."""
        if stage.model is not self.start().model:
            curves = None if self._first is None else self._first[1].calibrations.curves
            return ready(stage.model, data, options, clock, curves)
        if self._first is None or self._first[0] is not data:
            self._first = (data, ready(stage.model, data, options, clock))
        return self._first[1]

    def _remaining(self, stage: Stage[ChannelsKept], amount: float) -> PruneOptions | None:
        """What is still to be removed of a model, so that in all a fraction of the original is; None for nothing."""
        options = cut_only(self.options)
        target = self.options.target
        if target is None:
            kept = {dim: int(mask.sum()) for dim, mask in stage.gone.items()}
            dims = [info.dim for info in candidates(self.tracing, options)]
            left = sum(kept.get(dim, dim.size) for dim in dims) / max(sum(d.size for d in dims), 1)
            share = (1.0 - amount) / left if left else 1.0
            return replace(options, sparsity=1.0 - share) if share < 1 else None
        left = self.left(stage)
        share = (1.0 - amount) / left
        kind = "macs" if target.kind == "drop" else target.kind
        return replace(options, target=Target(kind, share)) if share < 1 else None

    def left(self, stage: Stage[ChannelsKept]) -> float:
        """The share of the original that a stage has left, in the currency of the target; MACs where that has none."""
        kept = {dim: int(mask.sum()) for dim, mask in stage.gone.items()}
        target = self.options.target
        if target is not None and target.kind == "latency":
            return self.latency(stage.model) if kept else 1.0
        cost = COSTS["macs" if target is None or target.kind == "drop" else target.kind](
            self.tracing
        )
        return cost.total(kept) / cost.total({})

    def latency(self, model: ir.Model) -> float:
        """Latency of a model relative to the original's, measured."""
        if self._watch is None:
            self._watch = Stopwatch(
                self.tracing.model, self.measured.inputs, self.options.providers
            )
        return self._watch.ratio(model)

    def rewound(self, gone: ChannelsKept) -> ir.Model:
        """See `Line`."""
        return cut(self.tracing, gone)

    def refit(self, stage: Stage[ChannelsKept], data: Dataset, progress: Progress) -> str:
        """See `Line`."""
        return repair(self.tracing, stage.gone, stage.model, data, self.options, progress)

    def kept(self, gone: ChannelsKept) -> Kept:
        """See `Line`."""
        return kept_places(self.tracing, gone)

    def cost(self, stage: Stage[ChannelsKept]) -> Cost:
        """See `Line`."""
        kept = {dim: int(mask.sum()) for dim, mask in stage.gone.items()}
        return Cost(params(stage.model), macs=macs_left(self.tracing, kept))

    def outcome(self, stage: Stage[ChannelsKept]) -> Outcome:
        """See `Line`.

        Raises:
            NothingToPruneError: Nothing is gone.
            ValidationError: The steps together are not the one cut that the plan states, or that is not exact.
        """
        if not stage.gone and self.options.target is None and self.options.fraction > 0:
            raise NothingToPruneError(build.nothing_to_round(self.options))
        whole = cut(self.tracing, stage.gone)
        check_shapes(whole, stage.model)
        proof = prove(self.tracing, stage.gone, whole, self.options.seed)
        if not proof.holds:
            raise ValidationError(
                f"the steps are exact one by one but not together (relative error {proof.error:.1e});"
                " nothing was written: use fewer steps"
            )
        dead = {dim: mask for dim, mask in self.dead.keep.items() if dim in stage.gone}
        return Outcome(
            stage.model,
            channels_plan(self.tracing, stage.gone, dead, self.options),
            self.measured,
            self.tracing,
            stage.gone,
            checks=(*self.dead.checks, build.proof_check(proof)),
            notes=stage.notes,
            trials=stage.trials,
        )

    def to_json(self, gone: ChannelsKept) -> Mapping[str, list[int]]:
        """See `Line`: removed indices by the number of the Dim."""
        number = {info.dim: k for k, info in enumerate(self.tracing.dims)}
        return {str(number[dim]): np.flatnonzero(~mask).tolist() for dim, mask in gone.items()}

    def from_json(self, plain: Mapping[str, list[int]]) -> ChannelsKept:
        """See `Line`."""
        gone = {}
        for number, indices in plain.items():
            dim = self.tracing.dims[int(number)].dim
            gone[dim] = np.ones(dim.size, bool)
            gone[dim][indices] = False
        return gone
