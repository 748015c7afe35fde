"""Training as the last step of pruning."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.report.training import training_check, training_notes
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.outcome import Outcome
from onnxprune.train.options import TrainOptions
from onnxprune.train.recovery import reestimated, retrained

__all__ = ["trained", "training_options"]


def trained(
    original: ir.Model, done: Outcome, data: Dataset, options: PruneOptions, progress: Progress
) -> Outcome:
    """Trained once the cut has been proven, for a trained model is the masked one no more."""
    if options.recover == "bn":
        note = reestimated(done.pruned, data, progress, options.providers)
        return replace(done, notes=(*done.notes, note))
    found = retrained(original, done.pruned, data, training_options(options), progress)
    checks, notes = (*done.checks, training_check(found)), (*done.notes, *training_notes(found))
    return replace(done, pruned=found.model, checks=checks, notes=notes)


def training_options(options: PruneOptions) -> TrainOptions:
    """The options of training, with the seed and providers of the run."""
    chosen = options.train or TrainOptions()
    return replace(chosen, seed=options.seed, providers=options.providers)
