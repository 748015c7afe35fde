"""Layers are left out, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Tracing, trace
from onnxprune.errors import NothingToPruneError, ValidationError
from onnxprune.graph import clone
from onnxprune.graph.branches import Branch, branches, left_out, silenced
from onnxprune.graph.cost import macs, nbytes, params
from onnxprune.graph.patterns import is_named
from onnxprune.options import PruneOptions
from onnxprune.plan.reach import Stopwatch
from onnxprune.plan.weight_plan import PLAN_FORMAT
from onnxprune.progress import Progress
from onnxprune.recover import refit
from onnxprune.report import Cost, LayerRow, build
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import Measured, measure
from onnxprune.scores.layers import Looking, looking_at, portion, tried
from onnxprune.steps.lines.line import Stage, check_shapes
from onnxprune.steps.outcome import Outcome
from onnxprune.train.blocks import Kept
from onnxprune.validation.equality import largest_error
from onnxprune.validation.proof import draws

__all__ = ["LayerGone", "Layers", "branches_left", "layer_row"]


@dataclass(frozen=True, eq=False)
class LayerGone:
    """A layer that was left out.

    Attributes:
        branch: What it was.
        mean: What took its place, such as broadcasts; None: nothing.
        moved: How far the outputs were from the original's then.
    """

    branch: Branch
    mean: np.ndarray | None
    moved: float


LayersGone = tuple[LayerGone, ...]

ROUNDING = 1e-9
"""Of shares."""


class Layers:
    """What is gone is told by the sums that went round it.

    Raises:
        NothingToPruneError: No sum goes round a layer.
    """

    def __init__(self, model: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.model, self.options = model, options
        self.measured = measure(model, {**data.shapes_of_one, **options.shapes})
        self.sums = {branch.sum for branch in self._branches(model)}
        self._watch: Stopwatch | None = None
        if not self.sums:
            raise NothingToPruneError(
                "nothing to prune: the model has no layers that a sum goes round (a residual connection), or all are"
                " excluded"
            )

    @cached_property
    def tracing(self) -> Tracing:
        """The Dims of the original."""
        return trace(self.model, self.measured)

    def start(self) -> Stage[LayersGone]:
        """See `Line`."""
        return Stage(self.model, ())

    def further(
        self,
        stage: Stage[LayersGone],
        amount: float,
        data: Dataset,
        progress: Progress,
        clock: Clock,
    ) -> Stage[LayersGone]:
        """See `Line`; the proof waits for the outcome."""
        model, gone = clone(stage.model), stage.gone
        with clock.step("choose"):
            looking = self._looking(data)
            while not self._reached(model, amount):
                found = self._branches(model)
                if not found:
                    raise NothingToPruneError(
                        f"the target {self.options.target} is out of reach: without all of its layers"
                        f" {self._left(model):.3f} of the model is left"
                    )
                tries = tried(model, found, looking, self._saved(model, amount), progress)
                for one in tries[: portion(len(self.sums))]:
                    if not self._reached(model, amount) and one.branch in self._branches(model):
                        means = None if one.mean is None else {one.branch: one.mean}
                        model = left_out(model, [one.branch], means)
                        gone = (*gone, LayerGone(one.branch, one.mean, one.moved))
        return Stage(model, gone)

    def rewound(self, gone: LayersGone) -> ir.Model:
        """See `Line`."""
        means = {one.branch: one.mean for one in gone if one.mean is not None}
        return left_out(self.model, [one.branch for one in gone], means or None)

    def refit(self, stage: Stage[LayersGone], data: Dataset, progress: Progress) -> str:
        """See `Line`."""
        if self.options.recover == "bias":
            return f"{len(stage.gone)} layers left their means"
        options = self.options
        changed = {one.branch.sum for one in stage.gone}
        done = refit(
            self.tracing,
            {},
            stage.model,
            data,
            progress,
            options.providers,
            options.seed,
            changed,
        )
        return f"{len(done)} weights were re-fitted on {len(data)} samples"

    def kept(self, gone: LayersGone) -> Kept | None:
        """See `Line`."""

    def cost(self, stage: Stage[LayersGone]) -> Cost:
        """See `Line`."""
        return Cost(params(stage.model), macs=self._cost("macs")(stage.model))

    def outcome(self, stage: Stage[LayersGone]) -> Outcome:
        """See `Line`.

        Raises:
            NothingToPruneError: Nothing is gone.
            ValidationError: What is left is not the original with those layers silent.
        """
        options = self.options
        gone = [one.branch for one in stage.gone]
        if not gone and options.target is None and options.fraction > 0:
            raise NothingToPruneError(
                f"nothing to prune: at sparsity {options.fraction:g} none of {len(self.sums)} layers goes"
            )
        whole = stage.model
        if (
            options.recover != "none"
        ):  # then it is another function, and only its shapes can be held against the plan
            whole = left_out(self.model, gone)
            check_shapes(whole, stage.model)
        silent = silenced(self.model, gone)
        proof = largest_error(silent, whole, self.measured.inputs, options.seed)
        if not proof.holds:
            why = (
                "the model draws random numbers, and no two runs agree"
                if draws(self.model)
                else f"leaving layers out is not the same as silencing them (relative error {proof.error:.1e})"
            )
            raise ValidationError(f"{why}; nothing was written")
        plan = {
            "format": PLAN_FORMAT,
            "granularity": "layer",
            "layers": [asdict(branch) for branch in gone],
            "options": options.to_dict(),
        }
        return Outcome(
            stage.model,
            plan,
            self.measured,
            layers=tuple(layer_row(one.branch, one.moved) for one in stage.gone),
            checks=(build.proof_check(proof, "leaving layers out equals silencing them"),),
            notes=stage.notes,
        )

    def to_json(self, gone: LayersGone) -> Any:
        """See `Line`."""
        return [
            {
                "branch": asdict(one.branch),
                "mean": None if one.mean is None else one.mean.tolist(),
                "dtype": None if one.mean is None else one.mean.dtype.name,
                "moved": one.moved,
            }
            for one in gone
        ]

    def from_json(self, plain: Any) -> LayersGone:
        """See `Line`."""
        return tuple(
            LayerGone(
                Branch(**one["branch"]),
                None if one["mean"] is None else np.array(one["mean"], one["dtype"]),
                one["moved"],
            )
            for one in plain
        )

    def _branches(self, model: ir.Model) -> list[Branch]:
        """The layers that a model made from the original still has."""
        return branches_left(model, self.measured, self.options)

    def _looking(self, data: Dataset) -> Looking:
        options = self.options
        found = looking_at(
            self.tracing, len(self.sums), data, options.repairs, options.providers, options.seed
        )
        if not found.outputs.reference.compares:
            raise NothingToPruneError(
                "nothing to prune: what a layer does is told by how far the model's outputs move, and none of them has"
                " real numbers, always as many"
            )
        return found

    def _left(self, model: ir.Model) -> float:
        """The share of the original that a model has left, in what the run counts in."""
        target = self.options.target
        if target is None:
            return len(self.sums & {each.sum for each in self._branches(model)}) / len(self.sums)
        if target.kind == "latency":
            if self._watch is None:
                self._watch = Stopwatch(self.model, self.measured.inputs, self.options.providers)
            return self._watch.ratio(model)
        cost = self._cost(target.kind)
        return cost(model) / cost(self.model)

    def _reached(self, model: ir.Model, amount: float) -> bool:
        if self.options.target is None:
            amount = math.floor(amount * len(self.sums) + 0.5) / len(self.sums)
        return self._left(model) <= 1 - amount + ROUNDING

    def _saved(self, model: ir.Model, amount: float) -> Callable[[ir.Model], float]:
        """What another model is smaller by, as far as that is asked for: a layer, or the kind of the target."""
        target = self.options.target
        if target is None:
            return lambda _: 1.0
        cost = self._cost(target.kind)
        before = cost(model)
        most = math.inf if target.kind == "latency" else before - (1 - amount) * cost(self.model)
        return lambda other: min(before - cost(other), most)

    def _cost(self, kind: str) -> Callable[[ir.Model], int]:
        """What a model costs: MACs where the target is none of it."""
        match kind:
            case "params":
                return params
            case "bytes":
                return nbytes
        return lambda model: macs(model, self.measured.shapes_in(model))


def branches_left(model: ir.Model, measured: Measured, options: PruneOptions) -> list[Branch]:
    """The layers that a model still has and that are not excluded.

    Args:
        model: The model.
        measured: Shapes of the one that it was made from.
        options: What is excluded.
    """
    return branches(
        model, measured.shapes_in(model), lambda names: is_named(names, options.exclude)
    )


def layer_row(branch: Branch, moved: float | None) -> LayerRow:
    """What goes with a branch, and how far the outputs move."""
    return LayerRow(branch.sum, branch.nodes, branch.params, branch.macs, moved)
