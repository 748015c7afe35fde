"""Weights become zero, step after step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir

from onnxprune.graph import clone
from onnxprune.graph.cost import params
from onnxprune.options import PruneOptions
from onnxprune.plan.compose import compose_masks
from onnxprune.plan.weight_plan import WeightPlan
from onnxprune.plan.zero import check_zeroed, zero
from onnxprune.progress import Progress
from onnxprune.report import Check, Cost
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.lines.line import Stage, cut_only
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.repair import repair_zeros
from onnxprune.steps.zeros import zero_weights

__all__ = ["Zeros"]


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
        options = replace(cut_only(self.options), target=None, sparsity=amount)
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
