"""The whole path of a model on one page.

    load -> measure -> trace Dims -> fold -> score -> choose -> cut (or zero) -> prove -> save -> compare

Each arrow is a function from data to data; those that are more than one call are in `steps/`. What they found goes into
the report. Nothing is written unless the proof holds.
"""

from __future__ import annotations

from pathlib import Path

from onnxprune.dims import trace
from onnxprune.errors import DataError
from onnxprune.graph import check_spared, inline, load, save
from onnxprune.graph.patterns import leave_alone
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.plan.losses import losses_by_dim
from onnxprune.plan.sparse import write_sparse
from onnxprune.progress import Progress
from onnxprune.report import Check, Report, build, pending_json
from onnxprune.report.timing import Clock
from onnxprune.report.training import training_report
from onnxprune.runtime.data import read_data
from onnxprune.runtime.measure import measure
from onnxprune.steps import compared, kept_steps, layer_rows, pruned, random_inputs, samples
from onnxprune.train.finetune import accepted, fit
from onnxprune.train.options import TrainOptions
from onnxprune.validation.compare import compare

__all__ = ["finetune", "inspect", "prune", "validate"]


def prune(input: Path, output: Path | None, options: PruneOptions, progress: Progress) -> Report:
    """Prunes a model file.

    Args:
        input: The model to read.
        output: Where to write; None with `options.dry_run`.
        options: What to prune and how.
        progress: Where long work is shown.

    Raises:
        OnnxPruneError: Nothing can be pruned, the input is bad, or the proof does not hold; nothing is written then.
    """
    clock = Clock()
    with clock.step("load"):
        original = load(input)
        check_spared(original, (options.plan, options.report))
        leave_alone(original, options.exclude)
        data = None if options.data is None else samples(options, original)
    with kept_steps(original, output, data, options) as checkpoint:
        done = pruned(original, data, options, progress, clock, checkpoint)
        feeds = (
            done.aside
            or data
            or random_inputs(original, done.measured, options.seed, options.shapes)
        )
        with clock.step("compare"):
            repaired = options.recover != "none" and data is not None
            comparison = compared(original, done.pruned, feeds, options, repaired)
        with pending_json(done.plan, options.plan, indent=None):
            if output is not None and not options.dry_run:
                with clock.step("save"), progress.step("saving"):
                    save(done.pruned, output)
                    if options.sparse_format and done.zeroed is not None:
                        write_sparse(output, done.zeroed.zeroed.keys())
    return build.report(
        "prune",
        input,
        output,
        options,
        original=original,
        pruned=done.pruned,
        measured=done.measured,
        tracing=done.tracing,
        keep=done.keep,
        weight_plan=done.zeroed,
        layers=done.layers,
        trials=done.trials,
        steps=done.steps,
        checks=(*done.checks, *build.comparison_checks(comparison)),
        notes=(
            *done.notes,
            *build.latency_note(options.target, comparison),
            *([data.note] if data is not None and data.note else ()),
        ),
        timings=clock.seconds,
    )


def inspect(input: Path, options: PruneOptions, progress: Progress) -> Report:
    """What of a model can be cut, what not and why, and what it costs: with data, in accuracy too. Writes nothing."""
    clock = Clock()
    with clock.step("load"):
        loaded = load(input)
        check_spared(loaded, (options.report,))
        leave_alone(loaded, options.exclude)
        model = inline(loaded)
        data = None if options.data is None else samples(options, model)
    with clock.step("measure"):
        given = {} if data is None else data.shapes_of_one
        measured = measure(model, {**given, **options.shapes})
    with clock.step("trace"):
        tracing = trace(model, measured)
    losses = None
    with clock.step("sensitivity"):
        if data is not None:
            dims = candidates(tracing, options)
            losses = losses_by_dim(tracing, dims, options, data, progress)
        layers = layer_rows(tracing, data, options, progress)
    return build.report(
        "inspect",
        input,
        None,
        options,
        original=model,
        measured=measured,
        tracing=tracing,
        losses=losses,
        layers=layers,
        timings=clock.seconds,
    )


def validate(before: Path, after: Path, options: PruneOptions, progress: Progress) -> Report:
    """Drift, accuracy and latency of one model against another, on the user's inputs or on random ones."""
    clock = Clock()
    with clock.step("load"):
        a, b = load(before), load(after)
        for model in (a, b):
            check_spared(model, (options.report,))
        data = None if options.data is None else samples(options, a)
    with clock.step("compare"):
        feeds = data or random_inputs(a, None, options.seed, options.shapes)
        comparison = compared(a, after, feeds, options)
    return build.report(
        "validate",
        before,
        after,
        options,
        original=a,
        pruned=b,
        checks=build.comparison_checks(comparison),
        timings=clock.seconds,
    )


def finetune(
    input: Path,
    output: Path,
    data: Path,
    options: TrainOptions,
    *,
    teacher: Path | None = None,
    evaluation: Path | None = None,
    report: Path | None = None,
    progress: Progress,
) -> Report:
    """Trains a model file on a data set.

    Args:
        input: The model to train; stays untouched.
        output: Where the trained model goes.
        data: The samples to train on, as `onnxprune.runtime.data` reads them.
        options: How.
        teacher: The original model, whose outputs are to be followed.
        evaluation: Other samples, that both models are compared on at the end.
        report: Where the report is going to be written.
        progress: Where it is shown.

    Raises:
        OnnxPruneError: Anything is wrong with the files, or training diverged before it had improved the
            model; nothing is written then.
        KeyboardInterrupt: The user interrupted before training had improved the model.
    """
    clock = Clock()
    with clock.step("load"):
        model = load(input)
        samples = read_data(data, model)
        original = None if teacher is None else load(teacher)
        for each in (model, *([original] if original is not None else [])):
            check_spared(each, (output, report))
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
            checks = build.comparison_checks(
                compare(model, done.model, tests, providers=options.providers, seconds=0.0)
            )
    with clock.step("save"), progress.step("saving"):
        save(done.model, output)
    notes = (samples.note,) if samples.note else ()
    return training_report(input, output, model, done, checks, clock.seconds, notes)
