"""What removing channels or layers, or zeroing weights, gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from onnxprune.dims import Keep, Tracing
from onnxprune.options import PruneOptions
from onnxprune.plan.removal import copies, removed
from onnxprune.plan.weight_plan import PLAN_FORMAT, WeightPlan
from onnxprune.report import Check, LayerRow, StepRow, TrialRow
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import Measured
from onnxprune.scores.obs import Fitted

__all__ = ["Outcome", "channels_plan"]


@dataclass(frozen=True)
class Outcome:
    """A pruned model and how it came about.

    Attributes:
        pruned: The model.
        plan: What was removed or zeroed, as JSON takes it.
        measured: Shapes of the original; None where nothing was cut.
        tracing: Its Dims, likewise.
        keep: What is kept of them.
        chosen: Whether anything goes but what was dead.
        fitted: What a criterion knows to make up for the rest, see `onnxprune.recover.compensate`.
        way: How it was chosen, in words.
        zeroed: What became zero; None where channels were removed.
        layers: What was left out, in order.
        checks: What was proven.
        notes: What else the user should know.
        trials: What was tried on the way.
        steps: The steps, where there were any, the original first.
        aside: Samples that no step has seen; None where all were used.
    """

    pruned: ir.Model
    plan: dict[str, Any]
    measured: Measured | None = None
    tracing: Tracing | None = None
    keep: Keep = field(default_factory=dict)
    chosen: bool = False
    fitted: Mapping[ir.Node, Fitted] = field(default_factory=dict)
    way: str = ""
    zeroed: WeightPlan | None = None
    layers: tuple[LayerRow, ...] = ()
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    steps: tuple[StepRow, ...] = ()
    aside: Dataset | None = None


def channels_plan(
    tracing: Tracing, keep: Keep, dead: Keep, options: PruneOptions
) -> dict[str, Any]:
    """What was removed, as JSON takes it: every cut of every tensor, and of those the ones that cost nothing."""
    return {
        "format": PLAN_FORMAT,
        "granularity": "channel",
        "removed": removed(tracing, keep),
        "copies": copies(tracing, keep),
        "dead": removed(tracing, dead),
        "options": options.to_dict(),
    }
