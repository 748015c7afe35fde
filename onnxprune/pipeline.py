"""The whole path of a model on one page.

    load -> measure -> trace Dims -> score -> choose -> cut (or zero) -> prove -> save -> compare

Each arrow is a function from data to data; what a step found goes into the report. Nothing is written unless the proof
holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.dims import DimInfo, Keep, Tracing, cut, removed, trace
from onnxprune.dims.solver import freeze
from onnxprune.errors import NothingToPruneError
from onnxprune.graph import clone, inline, load, save
from onnxprune.graph.cost import nbytes
from onnxprune.graph.load import SOURCE
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.plan.granularity import Channel
from onnxprune.plan.search import Choice, search
from onnxprune.plan.sparse import write_sparse
from onnxprune.plan.weight_plan import PLAN_FORMAT, WeightPlan
from onnxprune.plan.weights import plan_weights
from onnxprune.plan.zero import check_zeroed, zero
from onnxprune.progress import Progress
from onnxprune.recover import refit
from onnxprune.report import Check, Report, build, write_json
from onnxprune.report.timing import Clock
from onnxprune.report.training import training_check, training_notes
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.inputs import random_feed, running_shapes
from onnxprune.runtime.measure import Measured, measure
from onnxprune.sampling import loss_note, masks_context
from onnxprune.train.options import TrainOptions
from onnxprune.train.recovery import reestimated, retrained, seen
from onnxprune.validate.compare import Comparison, compare
from onnxprune.validate.proof import inexact_dims, prove

__all__ = ["inspect", "prune", "validate"]

LARGEST_COMPARED = 1 << 30
"""Models with more bytes of weights than this are not run for drift and latency."""
RANDOM_INPUTS = 2
"""Inputs that models are compared on where the user gives none."""


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
        data = None if options.data is None else read_data(options.data, original)
    work = _channels if isinstance(options.granularity, Channel) else _weights
    done = work(inline(original), data, options, progress, clock)
    if options.recover in ("bn", "finetune") and data is not None:
        with clock.step("train"):
            done = _retrained(original, done, data, options, progress)
    with clock.step("compare"):
        feeds = data or _random_inputs(original, done.measured, options.seed, options.shapes)
        comparison = _compare(original, done.pruned, feeds, options)
    if options.plan is not None:
        write_json(done.plan, options.plan, indent=None)
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
        checks=(*done.checks, *build.comparison_checks(comparison)),
        notes=(*done.notes, *([data.note] if data is not None and data.note else ())),
        timings=clock.seconds,
    )


def inspect(input: Path, options: PruneOptions, progress: Progress) -> Report:
    """What of a model can be cut, what not and why, and what it costs. Writes nothing."""
    clock = Clock()
    with clock.step("load"):
        model = inline(load(input))
    with clock.step("measure"):
        measured = measure(model, options.shapes)
    with clock.step("trace"):
        tracing = trace(model, measured)
    return build.report(
        "inspect",
        input,
        None,
        options,
        original=model,
        measured=measured,
        tracing=tracing,
        timings=clock.seconds,
    )


def validate(before: Path, after: Path, options: PruneOptions, progress: Progress) -> Report:
    """Drift, accuracy and latency of one model against another, on the user's inputs or on random ones."""
    clock = Clock()
    with clock.step("load"):
        a, b = load(before), load(after)
        data = None if options.data is None else read_data(options.data, a)
    with clock.step("compare"):
        feeds = data or _random_inputs(a, None, options.seed, options.shapes)
        comparison = _compare(a, after, feeds, options)
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


@dataclass(frozen=True)
class _Done:
    """What either granularity gives back."""

    pruned: ir.Model
    plan: dict[str, Any]
    measured: Measured | None = None
    tracing: Tracing | None = None
    keep: Keep = field(default_factory=dict)
    zeroed: WeightPlan | None = None
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


def _channels(
    model: ir.Model, data: Dataset | None, options: PruneOptions, progress: Progress, clock: Clock
) -> _Done:
    """Structural: trace, choose, cut and prove; Dims whose cut turns out inexact are left whole."""
    with clock.step("measure"):
        given = {} if data is None else data.shapes_of_one
        measured = measure(model, {**given, **options.shapes})
    with clock.step("trace"):
        tracing = trace(model, measured)
    notes: list[str] = []
    while True:
        with clock.step("choose"):
            dims = candidates(tracing, options)
            choice = _choice(tracing, dims, options, data, progress)
            keep = choice.keep
        with clock.step("cut"):
            pruned = cut(tracing, keep)
        with clock.step("prove"), progress.step("proving that cutting equals masking"):
            proof = prove(tracing, keep, pruned, options.seed)
            guilty = () if proof.holds else inexact_dims(tracing, keep, options.seed)
        if proof.holds:
            break
        for dim in guilty:
            freeze(dim, "cutting it was measured not to be the same as zeroing it")
        notes.append(
            f"{len(guilty)} Dims were left whole: cutting them was measured not to be exact"
        )
    if options.recover in ("lstsq", "finetune") and data is not None:
        with clock.step("recover"):
            used = data if options.recover == "lstsq" else seen(data, _training(options))
            refitted = refit(
                tracing, keep, pruned, used, progress, options.providers, options.seed, choice.fitted
            )
        notes.append(f"{len(refitted)} weights were re-fitted on {len(used)} samples")
    plan = {
        "format": PLAN_FORMAT,
        "granularity": "channel",
        "removed": removed(tracing, keep),
        "options": options.to_dict(),
    }
    return _Done(
        pruned,
        plan,
        measured,
        tracing,
        keep,
        None,
        (build.proof_check(proof),),
        (*notes, *loss_note(model, data, options)),
    )


def _choice(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> Choice:
    if not dims:
        raise NothingToPruneError(build.nothing_to_prune(tracing, options))
    choice = search(tracing, dims, options, data, progress)
    if not choice.keep and options.target is None and options.fraction > 0:
        raise NothingToPruneError(
            f"nothing to prune: at sparsity {options.fraction:g} no Dim loses an index after rounding;"
            " raise --sparsity or set --round-to 1"
        )
    return choice


def _weights(
    model: ir.Model, data: Dataset | None, options: PruneOptions, progress: Progress, clock: Clock
) -> _Done:
    """Unstructured: choose and zero; the shapes stay."""
    with clock.step("choose"):
        context = masks_context(model, options, data, progress)
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
    return _Done(
        pruned,
        plan.to_dict(),
        zeroed=plan,
        checks=(check,),
        notes=(note, *loss_note(model, data, options)),
    )


def _retrained(
    original: ir.Model, done: _Done, data: Dataset, options: PruneOptions, progress: Progress
) -> _Done:
    """Trained once the cut has been proven, for a trained model is the masked one no more."""
    if options.recover == "bn":
        note = reestimated(done.pruned, data, progress, options.providers)
        return replace(done, notes=(*done.notes, note))
    found = retrained(original, done.pruned, data, _training(options), progress)
    checks, notes = (*done.checks, training_check(found)), (*done.notes, *training_notes(found))
    return replace(done, pruned=found.model, checks=checks, notes=notes)


def _training(options: PruneOptions) -> TrainOptions:
    chosen = options.train or TrainOptions()
    return replace(chosen, seed=options.seed, providers=options.providers)


def _random_inputs(
    model: ir.Model, measured: Measured | None, seed: int, shapes: Any = None
) -> list[dict[str, Any]]:
    found = measured.inputs if measured is not None else next(running_shapes(model, shapes))
    return [random_feed(model, found, seed + k) for k in range(RANDOM_INPUTS)]


def _compare(
    original: ir.Model,
    after: Path | ir.Model,
    feeds: Dataset | list[dict[str, Any]],
    options: PruneOptions,
) -> Comparison | None:
    """Drift, accuracy and latency against the original; None where nobody asked, or it is too large to run."""
    if nbytes(original) > LARGEST_COMPARED or not (options.check_drift or options.check_latency):
        return None
    return compare(
        original.meta[SOURCE],
        after,
        feeds,
        providers=options.providers,
        seconds=2.0 if options.check_latency else 0.0,
    )
