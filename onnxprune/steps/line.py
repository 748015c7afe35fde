"""A line of models, each pruned further than the one before, and all that is gone of the original by then.

Channels and zeros differ in how a step goes on, in how two cuts become one, and in nothing else; the loops over steps
(`progressive`) and over probes (`within_drop`) know neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, cut, trace
from onnxprune.errors import NothingToPruneError, ValidationError
from onnxprune.graph import clone, weights
from onnxprune.graph.cost import params
from onnxprune.options import PruneOptions
from onnxprune.plan.budget import COSTS, Target
from onnxprune.plan.channels import candidates, macs_left
from onnxprune.plan.compose import compose, compose_masks
from onnxprune.plan.granularity import Channel
from onnxprune.plan.reach import Stopwatch
from onnxprune.plan.recipe import Recipe
from onnxprune.plan.rounding import Blocks, blocks_of
from onnxprune.plan.weight_plan import WeightPlan
from onnxprune.plan.zero import check_zeroed, zero
from onnxprune.progress import Progress
from onnxprune.recover import compensate
from onnxprune.report import Check, Cost, TrialRow, build
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure
from onnxprune.steps.channels import Ready, alternatives, ready
from onnxprune.steps.dead import without_dead
from onnxprune.steps.outcome import Outcome, channels_plan
from onnxprune.steps.repair import repair, repair_zeros
from onnxprune.steps.training import kept_places
from onnxprune.steps.zeros import zero_weights
from onnxprune.train.blocks import Kept
from onnxprune.validate.proof import prove

__all__ = ["Channels", "Line", "Stage", "Zeros", "line_of"]

Gone = TypeVar("Gone")
ChannelsKept = dict[Dim, np.ndarray]


@dataclass(frozen=True)
class Stage(Generic[Gone]):
    """A model on the line.

    Attributes:
        model: The model.
        gone: What of the original is gone.
        notes: What the user should know.
        way: How it was chosen, in words.
        trials: What was tried on the way to it.
    """

    model: ir.Model
    gone: Gone
    notes: tuple[str, ...] = ()
    way: str = ""
    trials: tuple[TrialRow, ...] = ()


class Line(Protocol[Gone]):
    """How models of one kind of granularity follow each other."""

    def start(self) -> Stage[Gone]:
        """The original."""
        ...

    def further(
        self, stage: Stage[Gone], amount: float, data: Dataset, progress: Progress, clock: Clock
    ) -> Stage[Gone]:
        """The next model, with a fraction of the original gone, proven exact against the one before; not repaired."""
        ...

    def rewound(self, gone: Gone) -> ir.Model:
        """The original without what is gone: surviving weights as they were."""
        ...

    def refit(self, stage: Stage[Gone], data: Dataset, progress: Progress) -> str:
        """Repairs the stage's model in place so that it gives what the original gives; what was done, in words."""
        ...

    def kept(self, gone: Gone) -> Kept | None:
        """The places that are left along the axes of the original's values; None where all are."""
        ...

    def cost(self, stage: Stage[Gone]) -> Cost:
        """What the stage's model costs."""
        ...

    def outcome(self, stage: Stage[Gone]) -> Outcome:
        """The stage as the result of a run, with the plan of all that is gone and the proof of it."""
        ...

    def to_json(self, gone: Gone) -> Any:
        """What is gone, as JSON takes it."""
        ...

    def from_json(self, plain: Any) -> Gone:
        """Reads what `to_json` gave."""
        ...


def line_of(model: ir.Model, data: Dataset, options: PruneOptions) -> Line[Any]:
    """The line that begins with a model without local functions."""
    if isinstance(options.granularity, Channel):
        return Channels(model, data, options)
    return Zeros(model, options)


class Channels:
    """Channels are cut out. What is gone is told by what is kept of each Dim of the original.

    The original is that with constant channels folded into biases, where the options allow it: the same function.

    Raises:
        NothingToPruneError: No Dim can be cut.
    """

    def __init__(self, model: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.options = options
        self.measured = measure(model, {**data.shapes_of_one, **options.shapes})
        self.dead = without_dead(trace(model, self.measured), options)
        self.tracing = self.dead.tracing
        self._watch: Stopwatch | None = None
        self._first: tuple[Dataset, Ready] | None = None
        if not candidates(self.tracing, options) and not self.dead.keep:
            raise NothingToPruneError(build.nothing_to_prune(self.tracing, options))

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
        options = _cut_only(self.options)
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
            self._watch = Stopwatch(self.tracing, self.options.providers)
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
            raise NothingToPruneError(
                f"nothing to prune: at sparsity {self.options.fraction:g} no Dim loses an index after rounding;"
                " raise --sparsity or set --round-to 1"
            )
        whole = cut(self.tracing, stage.gone)
        _check_shapes(whole, stage.model)
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


class Zeros:
    """Weights become zero. What is gone is a plan of masks; None at the start."""

    def __init__(self, model: ir.Model, options: PruneOptions) -> None:
        self.model, self.options = model, options

    def start(self) -> Stage[WeightPlan | None]:
        """See `Line`."""
        return Stage(self.model, None)

    def further(
        self,
        stage: Stage[WeightPlan | None],
        amount: float,
        data: Dataset,
        progress: Progress,
        clock: Clock,
    ) -> Stage[WeightPlan | None]:
        """See `Line`. What is zero already counts, and goes first."""
        options = replace(_cut_only(self.options), target=None, sparsity=amount)
        done = zero_weights(stage.model, data, options, progress, clock)
        assert done.zeroed is not None
        return Stage(done.pruned, compose_masks(stage.gone, done.zeroed), done.notes)

    def rewound(self, gone: WeightPlan | None) -> ir.Model:
        """See `Line`."""
        model = clone(self.model)
        if gone is not None:
            zero(model, gone)
        return model

    def refit(self, stage: Stage[WeightPlan | None], data: Dataset, progress: Progress) -> str:
        """See `Line`."""
        if stage.gone is None:
            return "no weights were re-fitted"
        options = replace(self.options, criterion="magnitude")  # what is gone is settled
        repair_zeros(self.model, stage.model, stage.gone, data, options, progress)
        return f"weights were re-fitted on {len(data)} samples"

    def kept(self, gone: WeightPlan | None) -> None:
        """See `Line`."""

    def cost(self, stage: Stage[WeightPlan | None]) -> Cost:
        """See `Line`."""
        zeros = stage.gone.count if stage.gone is not None else 0
        return Cost(params(stage.model), zeros=zeros)

    def outcome(self, stage: Stage[WeightPlan | None]) -> Outcome:
        """See `Line`."""
        assert stage.gone is not None
        check_zeroed(stage.model, stage.model, stage.gone)
        check = Check("the plan's weights are zero", True, "after the repair too")
        return Outcome(
            stage.model,
            stage.gone.to_dict(),
            zeroed=stage.gone,
            checks=(check,),
            notes=stage.notes,
        )

    def to_json(self, gone: WeightPlan | None) -> Any:
        """See `Line`."""
        return None if gone is None else gone.to_dict()

    def from_json(self, plain: Any) -> WeightPlan | None:
        """See `Line`."""
        return None if plain is None else WeightPlan.from_dict(plain)


def _check_shapes(whole: ir.Model, model: ir.Model) -> None:
    """Raises ValidationError where a weight is not as large as the cut of the original makes it."""
    expected = {weight.name: weight.shape for weight in weights(whole)}
    for weight in weights(model):
        if expected.get(weight.name, weight.shape) != weight.shape:
            raise ValidationError(
                f"the steps left {weight.name!r} of shape {weight.shape}, their plan {expected[weight.name]};"
                " nothing was written: use fewer steps"
            )


def _cut_only(options: PruneOptions) -> PruneOptions:
    """The options of one step without its repair."""
    return replace(
        options, steps=None, rewind="none", checkpoint=None, recover="none", fold=False, train=None
    )
