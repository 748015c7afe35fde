"""Leaving layers out at once; those that stay are re-fitted around them where the options say so."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.lines import Layers
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.progressive import final_amount
from onnxprune.steps.repair import samples_to_fit

__all__ = ["leave_out_layers"]


def leave_out_layers(
    model: ir.Model, data: Dataset, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Leaves out layers until a fraction of them, or of what the target counts in, is gone.

    Raises:
        NothingToPruneError: There are none, or too few.
        ValidationError: The proof does not hold.
    """
    line = Layers(model, data, options)
    stage = line.further(line.start(), final_amount(options), data, progress, clock)
    if stage.gone and options.recover in ("bias", "lstsq", "finetune"):
        with clock.step("recover"):
            note = line.refit(stage, samples_to_fit(data, options), progress)
        stage = replace(stage, notes=(*stage.notes, note))
    return line.outcome(stage)
