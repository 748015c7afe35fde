"""Zeroing single weights, N:M groups and blocks; the shapes stay."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.plan.saliency import context_for_masks
from onnxprune.plan.weights import plan_weights
from onnxprune.plan.zero import check_zeroed, zero
from onnxprune.progress import Progress
from onnxprune.report import Check
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.sampling import loss_note
from onnxprune.steps.outcome import Outcome

__all__ = ["zero_weights"]


def zero_weights(
    model: ir.Model, data: Dataset | None, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Chooses, zeroes, and proves that nothing else changed."""
    with clock.step("choose"):
        context = context_for_masks(model, options, data, progress)
        plan = plan_weights(model, options, context, progress)
    with clock.step("zero"):
        pruned = clone(model)
        zero(pruned, plan)
    with clock.step("prove"):
        check_zeroed(model, pruned, plan)
    note = "zeros make a file compress better, not onnxruntime's CPU inference faster; channels do"
    check = Check(
        "only the plan's weights are zero",
        True,
        "every other weight is the original's, bit for bit",
    )
    return Outcome(
        pruned,
        plan.to_dict(),
        zeroed=plan,
        checks=(check,),
        notes=(note, *loss_note(model, data, options)),
    )
