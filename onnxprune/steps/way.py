"""The way from a model to a smaller one: at once, step by step, or as far as the accuracy allows."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import onnx_ir as ir

from onnxprune.graph import inline
from onnxprune.options import Channel, Layer, PruneOptions
from onnxprune.progress import Progress
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.channels import remove_channels
from onnxprune.steps.checkpoint import Checkpoint, checkpoint_folder, opened, run_key
from onnxprune.steps.layers import leave_out_layers
from onnxprune.steps.lines import Channels
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.progressive import progressive
from onnxprune.steps.training import trained
from onnxprune.steps.trials import Trials, are_made
from onnxprune.steps.within_drop import within_drop
from onnxprune.steps.zeros import zero_weights

__all__ = ["kept_steps", "pruned"]


def pruned(
    original: ir.Model,
    data: Dataset | None,
    options: PruneOptions,
    progress: Progress,
    clock: Clock,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """The model pruned, proven and repaired, as the options say.

    Raises:
        NothingToPruneError: Nothing can be pruned, or the target is out of reach.
        ValidationError: The proof does not hold.
    """
    model = inline(original)
    if options.steps is not None and data is not None:
        return progressive(model, data, options, progress, clock, checkpoint)
    if options.limits_drop and data is not None:
        return within_drop(model, data, options, progress, clock)
    if options.target is not None and are_made(options) and data is not None:
        line = Channels(model, data, options)
        found = Trials(line, data, options, clock).reach(
            line.start(), options.target.value, progress
        )
        done = line.outcome(found.fitted)
    elif isinstance(options.granularity, Layer):
        assert data is not None  # its criterion needs them
        done = leave_out_layers(model, data, options, progress, clock)
    else:
        work = remove_channels if isinstance(options.granularity, Channel) else zero_weights
        done = work(model, data, options, progress, clock)
    if options.recover in ("bn", "finetune") and data is not None:
        with clock.step("train"):
            done = trained(original, done, data, options, progress)
    return done


def kept_steps(
    original: ir.Model, output: Path | None, data: Dataset | None, options: PruneOptions
) -> AbstractContextManager[Checkpoint | None]:
    """Where the steps of progressive pruning are kept until the output is written; nowhere without steps."""
    if options.steps is None or data is None:
        return nullcontext()
    writes = output is not None and not options.dry_run
    folder = checkpoint_folder(output, options) if writes and output is not None else None
    return opened(folder, run_key(original, data, options))
