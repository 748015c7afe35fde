"""Removing channels: trace, fold away the dead ones, choose, cut and prove, and re-fit what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxprune.dims import Dim, DimInfo, Keep, Tracing, cut, trace
from onnxprune.dims.solver import freeze
from onnxprune.errors import NothingToPruneError
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.plan.gradients import loss_note
from onnxprune.plan.recipe import Recipe
from onnxprune.plan.search import Choice, search
from onnxprune.plan.second_order import Calibrations
from onnxprune.progress import Progress
from onnxprune.recover import compensate
from onnxprune.report import build
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import Measured, measure
from onnxprune.scores.obs import Curve
from onnxprune.steps.dead import Dead, without_dead
from onnxprune.steps.outcome import Outcome, channels_plan
from onnxprune.steps.repair import repair, samples_to_fit
from onnxprune.validation.proof import draws, inexact_dims, prove

__all__ = ["Ready", "alternatives", "ready", "remove_channels"]


def remove_channels(
    model: ir.Model, data: Dataset | None, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Structural pruning, and re-fitting what is left where the options say so.

    Raises:
        NothingToPruneError: No Dim can be cut, or none loses an index.
    """
    (done,) = alternatives(ready(model, data, options, clock), data, options, progress, clock)
    if not options.repairs or data is None or not done.chosen:
        return done
    assert done.tracing is not None
    with clock.step("recover"):
        used = samples_to_fit(data, options)
        if options.recover != "bias":
            compensate(done.tracing, done.keep, done.pruned, done.fitted)
        note = repair(done.tracing, done.keep, done.pruned, used, options, progress)
    return replace(done, notes=(*done.notes, note))


@dataclass(frozen=True, eq=False)
class Ready:
    """A model ready to be cut, in as many ways as are wanted.

    Attributes:
        measured: Shapes of its values.
        dead: Its Dims, and what goes before all else.
        notes: What the user should know.
        calibrations: What its samples tell.
    """

    measured: Measured
    dead: Dead
    notes: tuple[str, ...]
    calibrations: Calibrations = field(default_factory=Calibrations)


def ready(
    model: ir.Model,
    data: Dataset | None,
    options: PruneOptions,
    clock: Clock,
    curves: Mapping[str, Curve] | None = None,
) -> Ready:
    """Measures and traces a model, and finds what is dead in it.

    Args:
        model: The model.
        data: Samples.
        options: What may be cut.
        clock: Adds up the seconds of what is done.
        curves: What errors were worth in the model that it was cut from, see `onnxprune.plan.second_order`.
    """
    with clock.step("measure"):
        given = {} if data is None else data.shapes_of_one
        measured = measure(model, {**given, **options.shapes})
    with clock.step("trace"):
        tracing = trace(model, measured)
    with clock.step("fold"):
        dead = without_dead(tracing, options)
    notes = (*dead.notes, *loss_note(model, data, options), *_untold(measured))
    return Ready(measured, dead, notes, Calibrations(curves))


def _untold(measured: Measured) -> tuple[str, ...]:
    if not measured.untold:
        return ()
    axes = ", ".join(f"axis {axis} of {name!r}" for name, axis in sorted(measured.untold))
    return (
        f"the model ran at one size of {axes} only: integers that it computes from that are taken to be fixed",
    )


def alternatives(
    ground: Ready,
    data: Dataset | None,
    options: PruneOptions,
    progress: Progress,
    clock: Clock,
    recipes: Sequence[Recipe] | None = None,
) -> list[Outcome]:
    """A model cut, proven and not repaired: in one way, or one for each recipe.

    Dims whose cut turns out inexact are left whole, and the rest is chosen anew.

    Raises:
        NothingToPruneError: No Dim can be cut, or none loses an index.
    """
    dead, tracing = ground.dead, ground.dead.tracing
    notes = list(ground.notes)
    while True:
        with clock.step("choose"):
            dims = candidates(tracing, options)
            gone = {dim: mask for dim, mask in dead.keep.items() if dim.frozen is None}
            choices = _choices(
                tracing, dims, gone, options, data, progress, recipes, ground.calibrations
            )
        found, guilty = [], set[Dim]()
        for choice in choices:
            keep = {**gone, **choice.keep}
            with clock.step("cut"):
                pruned = cut(tracing, keep)
            with clock.step("prove"), progress.step("proving that cutting equals masking"):
                proof = prove(tracing, keep, pruned, options.seed)
                if not proof.holds:
                    guilty |= set(inexact_dims(tracing, keep, options.seed))
            plan = channels_plan(tracing, keep, gone, options)
            checks = (*dead.checks, build.proof_check(proof))
            chosen = bool(choice.keep)
            found.append(
                Outcome(
                    pruned,
                    plan,
                    ground.measured,
                    tracing,
                    keep,
                    chosen,
                    choice.fitted,
                    choice.way,
                    checks=checks,
                )
            )
        if not guilty:
            notes += ground.calibrations.notes
            return [replace(each, notes=tuple(notes)) for each in found]
        reason = (
            "the model draws random numbers, and no two runs agree"
            if draws(tracing.model)
            else "cutting it was measured not to be the same as zeroing it"
        )
        for dim in guilty:
            freeze(dim, reason)
        notes.append(
            f"{len(guilty)} Dims were left whole: cutting them was measured not to be exact"
        )


def _choices(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    dead: Keep,
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
    recipes: Sequence[Recipe] | None,
    calibrations: Calibrations,
) -> list[Choice]:
    if dead and (not dims or (options.target is None and options.fraction == 0)):
        return [Choice({})]
    if not dims:
        raise NothingToPruneError(build.nothing_to_prune(tracing, options))
    found = search(tracing, dims, options, data, progress, dead, recipes, calibrations)
    if not found[0].keep and not dead and options.target is None and options.fraction > 0:
        raise NothingToPruneError(build.nothing_to_round(options))
    return found
