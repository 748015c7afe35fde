"""Layers are left out, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import onnx_ir as ir

from onnxprune.dims import trace
from onnxprune.errors import NothingToPruneError, ValidationError
from onnxprune.graph import clone
from onnxprune.graph.cost import macs, nbytes, params
from onnxprune.options import PruneOptions
from onnxprune.plan.branches import Branch, branches, left_out, silenced
from onnxprune.plan.layers import Try, portion, samples_to_look_at, tried
from onnxprune.plan.reach import Stopwatch
from onnxprune.plan.weight_plan import PLAN_FORMAT
from onnxprune.progress import Progress
from onnxprune.recover import refit
from onnxprune.report import Cost, LayerRow, build
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import Measured, measure
from onnxprune.scores.moved import Outputs
from onnxprune.steps.lines.line import Stage, check_shapes
from onnxprune.steps.outcome import Outcome
from onnxprune.train.blocks import Kept
from onnxprune.validate.equality import largest_error

__all__ = ["Layers", "LayersGone", "layer_row"]

LayersGone = tuple[tuple[Branch, LayerRow], ...]
"""What is gone, in order, and what that saved and did."""


class Layers:
    """What is gone is told by the sums that went round it.

    Raises:
        NothingToPruneError: No sum goes round a layer.
    """

    def __init__(self, model: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.model, self.options = model, options
        self.measured = measure(model, {**data.shapes_of_one, **options.shapes})
        self.count = len({branch.sum for branch in self._branches(model)})
        self._watch: Stopwatch | None = None
        if not self.count:
            raise NothingToPruneError(
                "nothing to prune: the model has no layers that a sum goes round (a residual connection), or all are"
                " excluded"
            )

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
        """See `Line`."""
        model, gone = clone(stage.model), stage.gone
        looked_at = samples_to_look_at(data, self.count, self._cost("macs")(self.model))
        outputs = Outputs(self.model, looked_at, self.options.providers)
        means = self.options.recover in ("bias", "lstsq", "finetune")
        with clock.step("choose"):
            while not self._reached(model, gone, amount):
                found = self._branches(model)
                if not found:
                    raise NothingToPruneError(
                        f"the target {self.options.target} is out of reach: without all of its layers"
                        f" {self._left(model, gone):.3f} of the model is left"
                    )
                tries = tried(model, found, outputs, self._saved(model, amount), progress, means)
                for one in tries[: portion(self.count)]:
                    if not self._reached(model, gone, amount) and one.branch in self._branches(
                        model
                    ):
                        model, row = self._without(model, one)
                        gone = (*gone, (one.branch, row))
        return Stage(model, gone)

    def rewound(self, gone: LayersGone) -> ir.Model:
        """See `Line`."""
        return left_out(self.model, [branch for branch, _ in gone])

    def refit(self, stage: Stage[LayersGone], data: Dataset, progress: Progress) -> str:
        """See `Line`."""
        if self.options.recover == "bias":
            return f"{len(stage.gone)} layers left their means"
        tracing = trace(self.model, self.measured)
        options = self.options
        done = refit(tracing, {}, stage.model, data, progress, options.providers, options.seed)
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
        gone = [branch for branch, _ in stage.gone]
        if not gone and options.target is None and options.fraction > 0:
            raise NothingToPruneError(
                f"nothing to prune: at sparsity {options.fraction:g} none of {self.count} layers goes"
            )
        whole, silent = left_out(self.model, gone), silenced(self.model, gone)
        check_shapes(whole, stage.model)
        proof = largest_error(silent, whole, self.measured.inputs, options.seed)
        if not proof.holds:
            raise ValidationError(
                "leaving layers out is not the same as silencing them for this model (relative error"
                f" {proof.error:.1e}); nothing was written"
            )
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
            layers=tuple(row for _, row in stage.gone),
            checks=(build.proof_check(proof, "leaving layers out equals silencing them"),),
            notes=stage.notes,
        )

    def to_json(self, gone: LayersGone) -> Any:
        """See `Line`."""
        return [[asdict(branch), asdict(row)] for branch, row in gone]

    def from_json(self, plain: Any) -> LayersGone:
        """See `Line`."""
        return tuple((Branch(**branch), LayerRow(**row)) for branch, row in plain)

    def _branches(self, model: ir.Model) -> list[Branch]:
        return branches(model, self.measured.shapes_in(model), self.options.exclude)

    def _left(self, model: ir.Model, gone: LayersGone) -> float:
        """The share of the original that a model has left, in what the run counts in."""
        target = self.options.target
        if target is None:
            return 1 - len(gone) / self.count
        if target.kind == "latency":
            if self._watch is None:
                self._watch = Stopwatch(self.model, self.measured.inputs, self.options.providers)
            return self._watch.ratio(model) if gone else 1.0
        cost = self._cost(target.kind)
        return cost(model) / cost(self.model)

    def _reached(self, model: ir.Model, gone: LayersGone, amount: float) -> bool:
        if self.options.target is None:
            return len(gone) >= math.floor(amount * self.count + 0.5)
        return self._left(model, gone) <= 1 - amount

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

    def _without(self, model: ir.Model, one: Try) -> tuple[ir.Model, LayerRow]:
        """A model without a layer, and what that saved."""
        means = None if one.mean is None else {one.branch.key: one.mean}
        less = left_out(model, [one.branch], means)
        return less, layer_row(model, less, one.branch, self.measured, one.moved)


def layer_row(
    model: ir.Model, less: ir.Model, branch: Branch, measured: Measured, moved: float | None
) -> LayerRow:
    """What a model is smaller by without a branch, and how far its outputs move."""
    counted = [macs(each, measured.shapes_in(each)) for each in (model, less)]
    return LayerRow(
        name=branch.sum,
        nodes=branch.nodes,
        params=params(model) - params(less),
        macs=counted[0] - counted[1],
        moved=moved,
    )
