"""Training as the last step of pruning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Keep, Tracing, keep_mask
from onnxprune.graph.patterns import excluded_weights
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.report.training import training_check, training_notes
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.outcome import Outcome
from onnxprune.train.options import TrainOptions
from onnxprune.train.recovery import reestimated, retrained

__all__ = ["kept_places", "passes", "trained", "training_options"]


def trained(
    original: ir.Model, done: Outcome, data: Dataset, options: PruneOptions, progress: Progress
) -> Outcome:
    """Trained once the cut has been proven, for a trained model is the masked one no more."""
    if options.recover == "bn":
        note = reestimated(done.pruned, data, progress, options.providers)
        return replace(done, notes=(*done.notes, note))
    kept = None if done.tracing is None else kept_places(done.tracing, done.keep)
    found = retrained(
        original, done.pruned, data, training_options(options, done.pruned), progress, kept
    )
    checks, notes = (*done.checks, training_check(found)), (*done.notes, *training_notes(found))
    return replace(done, pruned=found.model, checks=checks, notes=notes)


def kept_places(tracing: Tracing, keep: Keep) -> dict[str, tuple[np.ndarray, ...]]:
    """The places that are left along the axes of each value, where some are not."""
    found = {}
    for value, axes in tracing.axes.items():
        masks = [keep_mask(axis, keep) for axis in axes]
        if value.name and not all(mask.all() for mask in masks):
            found[value.name] = tuple(np.flatnonzero(mask) for mask in masks)
    return found


def training_options(options: PruneOptions, model: ir.Model | None = None) -> TrainOptions:
    """The options of training, with the seed and providers of the run; what is excluded of a model is not trained."""
    chosen = options.train or TrainOptions()
    alone = () if model is None else excluded_weights(model, options.exclude)
    exclude = (*chosen.exclude, *alone)
    return replace(chosen, seed=options.seed, providers=options.providers, exclude=exclude)


def passes(data: Dataset, options: PruneOptions) -> int:
    """How often training sees these samples in all."""
    return training_options(options).passes(data.labels is not None, len(data))
