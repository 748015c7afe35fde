"""Leaving layers out at once, those that stay re-fitted around them; and what could be left out."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxprune.dims import Tracing
from onnxprune.graph.branches import Branch
from onnxprune.options import PruneOptions
from onnxprune.plan.schedule import final_amount
from onnxprune.progress import Progress
from onnxprune.report import LayerRow
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.scores.layers import looking_at, tried
from onnxprune.steps.lines.layers import Layers, branches_left, layer_row
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.repair import samples_to_fit

__all__ = ["layer_rows", "leave_out_layers"]


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
    if stage.gone and options.repairs:
        with clock.step("recover"):
            note = line.refit(stage, samples_to_fit(data, options), progress)
        stage = replace(stage, notes=(*stage.notes, note))
    return line.outcome(stage)


def layer_rows(
    tracing: Tracing, data: Dataset | None, options: PruneOptions, progress: Progress
) -> tuple[LayerRow, ...]:
    """The layers that can be left out, each alone, all others whole; with samples, how far the outputs move then."""
    model, measured = tracing.model, tracing.measured
    found = branches_left(model, measured, options)
    moved: dict[Branch, float] = {}
    if data is not None and found:
        looking = looking_at(tracing, len(found), data, True, options.providers, options.seed)
        if looking.outputs.reference.compares:
            tries = tried(model, found, looking, lambda _: 1.0, progress)
            moved = {one.branch: one.moved for one in tries}
    return tuple(layer_row(each, moved.get(each)) for each in found)
