"""What a training did, as a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from statistics import median

import onnx_ir as ir

from onnxprune import __version__
from onnxprune.graph import file_bytes
from onnxprune.graph.cost import params
from onnxprune.report.build import PACKAGES
from onnxprune.report.data import Check, Cost, Report
from onnxprune.train import Finetuned

__all__ = ["training_check", "training_notes", "training_report"]


def training_report(
    input: Path,
    output: Path,
    original: ir.Model,
    done: Finetuned,
    checks: tuple[Check, ...],
    timings: Mapping[str, float],
    notes: tuple[str, ...] = (),
) -> Report:
    """A report of the command `finetune`."""
    return Report(
        command="finetune",
        input=str(input),
        output=str(output),
        options={**asdict(done.options), "lr": done.trained.rate},
        before=Cost(params(original), file_bytes(input)),
        after=Cost(params(done.model), file_bytes(output)),
        checks=(training_check(done), *checks),
        timings=dict(timings),
        notes=(*training_notes(done), *notes),
        versions={"onnxprune": __version__, **{name: version(name) for name in PACKAGES}},
    )


def training_check(done: Finetuned) -> Check:
    """The course of a training, as a line of the report."""
    trained = done.trained
    summary = (
        f"{done.objective}: {trained.start} before; {trained.best} after, on {trained.best.samples} samples "
        f"held aside; best after epoch {trained.best_epoch} of {len(trained.epochs)}"
    )
    values = {
        "objective": done.objective,
        "weights": done.weights,
        "blocks": [asdict(block) for block in done.blocks],
        "start": asdict(trained.start),
        "best": asdict(trained.best),
        "best_epoch": trained.best_epoch,
        "epochs": [asdict(epoch) for epoch in trained.epochs],
    }
    return Check("training", None, summary, values)


def training_notes(done: Finetuned) -> tuple[str, ...]:
    """What the user should know about a training."""
    trained, notes = done.trained, []
    if done.blocks:
        middle = [median(getattr(b, name) for b in done.blocks) for name in ("before", "after")]
        notes.append(
            f"{len(done.blocks)} blocks were trained one by one before the whole; error of the middle one on samples "
            f"held aside {middle[0]:.3g} before, {middle[1]:.3g} after"
        )
    if trained.lowered:
        notes.append(
            f"the learning rate was lowered to {trained.rate:.2g}: a higher one did harm in the first epochs"
        )
    if trained.stopped:
        notes.append(f"{trained.stopped}; the model is the best before that")
    elif not trained.best_epoch:
        whole = " of the whole" if done.blocks else ""
        notes.append(f"no epoch{whole} did better than the model that it began with")
    return tuple(notes)
