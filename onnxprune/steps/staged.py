"""To a target in stages, each the best of a few: what a prediction cannot tell is tried.

What a channel is worth is predicted where the model stands, and the further a cut goes the less that holds. So a large
cut is made of some smaller ones, each predicted anew on the model that the one before has left, re-fitted. And at every
stage the widths are chosen in a few ways (see `Pricing`); all are re-fitted, and the one goes on whose outputs are
nearest to the original's on samples that neither chose nor fitted it. Where a trial takes little, more are made, and
some of all in one cut: what went at a stage does not come back. The best is re-fitted once more, on all samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import contractions
from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import macs_left
from onnxprune.plan.second_order import Pricing
from onnxprune.progress import Prefixed, Progress
from onnxprune.recover import Refitted, fit
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.sessions import run, session
from onnxprune.scores.distance import Reference
from onnxprune.steps.line import Channels, ChannelsKept, Stage
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.training import training_options
from onnxprune.train.recovery import seen

__all__ = ["is_staged", "pricings", "shares", "staged"]

TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
STAGE = 0.82
"""What a stage leaves of a model, about."""
MOST_STAGES = 3
TILT = 0.7
MOST_TILTS = 12
EFFORT = 3e9
"""MACs over all samples that all tilted trials of a stage may take in one pass."""
LAYER = 5e7
"""MACs that it takes as long to compute as to handle a layer."""
ASIDE = 0.25
FEWEST = 16
"""With fewer samples than this, what was fitted on them is judged on them."""
BATCH = 8


def is_staged(options: PruneOptions) -> bool:
    """Whether widths are free, priced by `obs`, and repaired."""
    target = options.target
    return (
        options.criterion == "obs"
        and target is not None
        and not options.limits_drop
        and options.recover in ("lstsq", "finetune")
    )


def shares(target: float) -> tuple[float, ...]:
    """What is left of the original after each stage: as much of the model before in each."""
    count = min(MOST_STAGES, max(1, round(math.log(target) / math.log(STAGE))))
    return tuple(target ** (k / count) for k in range(1, count + 1))


def pricings(effort: float) -> tuple[Pricing, ...]:
    """The ways to price errors that are tried at every stage, more where a trial takes little effort.

    Args:
        effort: MACs that one pass of all samples through the model takes.
    """
    more = min(MOST_TILTS, int(EFFORT // max(effort, 1.0)))
    tilted = (Pricing(TRUSTS[k % len(TRUSTS)], TILT, k) for k in range(more))
    return (*(Pricing(trust) for trust in TRUSTS), *tilted)


def staged(
    model: ir.Model, data: Dataset, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Prunes to `options.target`.

    Args:
        model: The original, without local functions.
        data: Samples, without labels.
        options: What to prune, and how far.
        progress: Where long work is shown.
        clock: Adds up the seconds of what is done.

    Raises:
        NothingToPruneError: Nothing can be cut, or the target is out of reach.
    """
    assert options.target is not None
    every = data if options.recover == "lstsq" else seen(data, training_options(options))
    used, aside = hold_aside(every, ASIDE, options.seed) if len(every) >= FEWEST else (every, every)
    line = Channels(model, every, options)
    layers = len(contractions(line.tracing))
    ways = pricings(macs_left(line.tracing, {}) * len(every) + LAYER * layers)
    trials = _Trials(line, used, aside, _Outputs(model, aside, options), options, ways, clock)
    target = options.target.value
    ends = [trials.along(shares(target), progress)]
    if len(ways) > len(TRUSTS) and len(shares(target)) > 1:
        ends.append(trials.along((target,), progress))
    best = min(ends, key=lambda end: end.error)
    stage, refitted = best.fitted, best.refitted
    if used is not every:
        known = [each.shrinkage * len(used) / len(every) for each in refitted]
        with clock.step("recover"):
            stage, refitted = _fitted(line, best.raw, every, options, progress, shrinkages=known)
    notes = [note for end in ends for note in end.notes]
    notes.append(f"{len(refitted)} weights were re-fitted on {len(every)} samples")
    done = line.outcome(stage)
    return replace(done, notes=(*done.notes, *dict.fromkeys(notes)))


@dataclass(frozen=True)
class _Trial:
    """A cut, re-fitted.

    Attributes:
        raw: Before the re-fit.
        fitted: After it.
        refitted: What the re-fit did.
        error: How far the outputs are from the original's.
        notes: What led there.
    """

    raw: Stage[ChannelsKept]
    fitted: Stage[ChannelsKept]
    refitted: Sequence[Refitted]
    error: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Trials:
    """What trials are made of: samples to fit on and samples to judge on."""

    line: Channels
    used: Dataset
    aside: Dataset
    outputs: _Outputs
    options: PruneOptions
    ways: Sequence[Pricing]
    clock: Clock

    def along(self, route: Sequence[float], progress: Progress) -> _Trial:
        """The last of some stages that leave these shares, each going on from the best of the one before."""
        stage, notes = self.line.start(), list[str]()
        for number, share in enumerate(route, 1):
            shown = Prefixed(progress, f"stage {number} of {len(route)}: ")
            every = self._tried(stage, share, shown)
            best = min(every, key=lambda trial: trial.error)
            stage = best.fitted
            notes += [*best.raw.notes, self._note(route, share, every)]
        return replace(best, notes=tuple(notes))

    def _tried(self, stage: Stage[ChannelsKept], share: float, progress: Progress) -> list[_Trial]:
        cuts = self.line.alternatives(stage, 1 - share, self.used, progress, self.clock, self.ways)
        found = []
        for raw in cuts:
            with self.clock.step("recover"):
                fitted, done = _fitted(
                    self.line, raw, self.used, self.options, progress, self.aside
                )
            found.append(_Trial(raw, fitted, done, self.outputs.moved(fitted.model)))
        return found

    def _note(self, route: Sequence[float], share: float, every: Sequence[_Trial]) -> str:
        assert self.options.target is not None
        errors = sorted(trial.error for trial in every)
        way = "in stages" if len(route) > 1 else "at once"
        return (
            f"{way}, to {share:.3f} of the {self.options.target.kind}: the outputs moved by {errors[0]:.3g} with the"
            f" best of {len(errors)} cuts, by {errors[-1]:.3g} with the worst"
        )


def _fitted(
    line: Channels,
    stage: Stage[ChannelsKept],
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
    aside: Dataset | None = None,
    shrinkages: Sequence[float] | None = None,
) -> tuple[Stage[ChannelsKept], list[Refitted]]:
    """The stage with a model of its own, re-fitted, and how."""
    model = clone(stage.model)
    done = fit(
        line.tracing,
        stage.gone,
        model,
        data,
        progress,
        options.providers,
        options.seed,
        None if aside is data else aside,
        shrinkages,
    )
    return Stage(model, stage.gone), done


class _Outputs:
    """What the original says to the samples held aside."""

    def __init__(self, original: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.data, self.providers = data, options.providers
        self.reference = Reference(self._of(original))

    def moved(self, model: ir.Model) -> float:
        """How far a model's outputs are from those."""
        return self.reference.moved(self._of(model))

    def _of(self, model: ir.Model) -> Iterator[list[np.ndarray]]:
        made = session(model, self.providers)
        for feed in self.data.batches(BATCH):
            every = [array for array in run(made, feed) if isinstance(array, np.ndarray)]
            yield [array for array in every if array.dtype.kind == "f" and array.ndim]
