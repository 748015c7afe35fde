"""Training from file to file."""

from __future__ import annotations

from pathlib import Path

from onnxprune.errors import DataError
from onnxprune.graph import load, save
from onnxprune.progress import Progress, Silent
from onnxprune.report import Check, Report
from onnxprune.report.build import comparison_checks
from onnxprune.report.timing import Clock
from onnxprune.report.training import training_report
from onnxprune.runtime.data import read_data
from onnxprune.train.finetune import accepted, fit
from onnxprune.train.options import TrainOptions
from onnxprune.validate.compare import compare

__all__ = ["finetune_file"]


def finetune_file(
    input: Path,
    output: Path,
    data: Path,
    options: TrainOptions,
    *,
    teacher: Path | None = None,
    evaluation: Path | None = None,
    progress: Progress | None = None,
) -> Report:
    """Trains a model file on a data set.

    Args:
        input: The model to train; stays untouched.
        output: Where the trained model goes.
        data: The samples to train on, as `onnxprune.runtime.data` reads them.
        options: How.
        teacher: The original model, whose outputs are to be followed.
        evaluation: Other samples, that both models are compared on at the end.
        progress: Where it is shown.

    Raises:
        OnnxPruneError: Anything is wrong with the files, or training diverged before it had improved the
            model; nothing is written then.
        KeyboardInterrupt: The user interrupted before training had improved the model.
    """
    progress = progress or Silent()
    clock = Clock()
    with clock.step("load"):
        model = load(input)
        samples = read_data(data, model)
        original = None if teacher is None else load(teacher)
        tests = None if evaluation is None else read_data(evaluation, model)
    if samples.labels is None and original is None:
        raise DataError(
            f"{data} has no labels: name the original model with --teacher, or give labels"
        )
    with clock.step("train"):
        done = accepted(fit(model, samples, original, options, progress=progress))
    checks: tuple[Check, ...] = ()
    if tests is not None:
        with clock.step("compare"):
            checks = comparison_checks(
                compare(model, done.model, tests, providers=options.providers, seconds=0.0)
            )
    with clock.step("save"), progress.step("saving"):
        save(done.model, output)
    notes = (samples.note,) if samples.note else ()
    return training_report(input, output, model, done, checks, clock.seconds, notes)
