"""Zeroing single weights, N:M groups and blocks; the shapes stay."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.plan.gradients import loss_note
from onnxprune.plan.saliency import context_for_masks
from onnxprune.plan.weights import plan_weights
from onnxprune.plan.zero import check_zeroed, zero
from onnxprune.progress import Progress
from onnxprune.report import Check
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.repair import repair_zeros, samples_to_fit

__all__ = ["zero_weights"]


def zero_weights(
    model: ir.Model, data: Dataset | None, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Chooses, zeroes, and proves that the plan's weights are zero, and that nothing else changed unless repaired."""
    surgeon = options.criterion == "obs"
    repaired = data is not None and (
        options.recover == "lstsq" or (options.recover == "finetune" and surgeon)
    )
    with clock.step("choose"):
        by = options
        if surgeon:  # how many of each layer; which ones is chosen below, where what they multiply can be seen
            shares = "lamp" if options.scope == "global" else "magnitude"
            by = replace(options, criterion=shares, recover="none", train=None)
        context = context_for_masks(model, by, data, progress)
        plan = plan_weights(model, by, context, progress)
    pruned = clone(model)
    if data is not None and (repaired or surgeon):
        with clock.step("recover"):
            used = samples_to_fit(data, options)
            plan = repair_zeros(model, pruned, plan, used, options, progress)
        if not repaired:
            pruned = clone(model)
    if not repaired:
        with clock.step("zero"):
            zero(pruned, plan)
    with clock.step("prove"):
        check_zeroed(pruned if repaired else model, pruned, plan)
    note = "zeros make a file compress better, not onnxruntime's CPU inference faster; channels do"
    rest = (
        "the others make up for them"
        if repaired
        else "every other weight is the original's, bit for bit"
    )
    check = Check("only the plan's weights are zero", True, rest)
    return Outcome(
        pruned,
        plan.to_dict(),
        zeroed=plan,
        checks=(check,),
        notes=(note, *loss_note(model, data, options)),
    )
