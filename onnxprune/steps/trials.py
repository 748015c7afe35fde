"""To a target in stages, each the best of a few: what a prediction cannot tell is tried.

What a channel is worth is predicted where the model stands, and the further a cut goes the less that holds. So a large
cut is made of some smaller ones, each predicted anew on the model that the one before has left, re-fitted. And at every
stage the widths are chosen in a few ways (see `Pricing`); all are re-fitted, and the one goes on whose outputs are
nearest to the original's on samples that neither chose nor fitted it. Where a trial takes little, more are made, and
some of all in one cut: what went at a stage does not come back. The best is re-fitted once more, on all samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxprune.calibrate import contractions
from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import macs_left
from onnxprune.plan.granularity import Channel
from onnxprune.plan.second_order import Pricing
from onnxprune.progress import Prefixed, Progress
from onnxprune.recover import Refitted, fit
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.scores.moved import Outputs
from onnxprune.steps.line import Channels, ChannelsKept, Stage
from onnxprune.steps.repair import samples_to_fit

__all__ = ["Reached", "Trials", "are_made", "pricings", "route"]

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


def are_made(options: PruneOptions) -> bool:
    """Whether widths are free, priced by `obs`, and repaired towards what a target leaves."""
    target = options.target
    return (
        isinstance(options.granularity, Channel)
        and options.criterion == "obs"
        and target is not None
        and not options.limits_drop
        and options.recover in ("lstsq", "finetune")
        and options.rewind == "none"
    )


def route(left: float, target: float) -> tuple[float, ...]:
    """What is left of the original after each stage of a way: as much of the model before in each.

    Args:
        left: The share of the original that the way begins with.
        target: The share that it ends with.
    """
    ratio = min(target / left, 1.0)
    count = min(MOST_STAGES, max(1, round(math.log(ratio) / math.log(STAGE))))
    return tuple(left * ratio ** (k / count) for k in range(1, count + 1))


def pricings(effort: float, kind: str = "macs") -> tuple[Pricing, ...]:
    """The ways to price errors that are tried at every stage, more where a trial takes little effort.

    Args:
        effort: MACs that one pass of all samples through the model takes.
        kind: What the target counts. Of a latency fewer trusts are tried, and one by the MACs that it saves.
    """
    more = min(MOST_TILTS, int(EFFORT // max(effort, 1.0)))
    tilted = (Pricing(TRUSTS[k % len(TRUSTS)], TILT, k) for k in range(more))
    if kind == "latency":
        return (*(Pricing(trust) for trust in TRUSTS[1:-1]), Pricing(saves="macs"), *tilted)
    return (*(Pricing(trust) for trust in TRUSTS), *tilted)


@dataclass(frozen=True)
class Reached:
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


class Trials:
    """Samples to fit on, samples to judge on, and the ways to price errors.

    Args:
        line: The original.
        data: Samples, without labels.
        options: What to prune, how far, and how it is recovered.
        clock: Adds up the seconds of what is done.
    """

    def __init__(self, line: Channels, data: Dataset, options: PruneOptions, clock: Clock) -> None:
        self._line, self._options, self._clock = line, options, clock
        every = samples_to_fit(data, options)
        self._every = every
        few = len(every) < FEWEST
        self._used, self._aside = (every, every) if few else hold_aside(every, ASIDE, options.seed)
        original = line.start().model
        self._outputs = Outputs(original, self._aside, options.providers)
        effort = macs_left(line.tracing, {}) * len(every)
        assert options.target is not None
        self._ways = pricings(effort + LAYER * len(contractions(line.tracing)), options.target.kind)
        self._cheap = any(way.tilt for way in self._ways)

    def reach(self, stage: Stage[ChannelsKept], share: float, progress: Progress) -> Reached:
        """The best cut found that leaves a share of the original, re-fitted on all samples.

        Args:
            stage: Where to go on from.
            share: What is left, in the currency of the target.
            progress: Where long work is shown.

        Raises:
            NothingToPruneError: Nothing can be cut, or the share is out of reach.
        """
        ways = [route(self._line.left(stage), share)]
        if self._cheap and len(ways[0]) > 1:
            ways.append((share,))
        ends = [self._along(way, stage, progress) for way in ways]
        best = min(ends, key=lambda end: end.error)
        notes = tuple(note for end in ends for note in end.notes)
        return self._on_all(replace(best, notes=notes), progress)

    def _along(
        self, way: Sequence[float], stage: Stage[ChannelsKept], progress: Progress
    ) -> Reached:
        """The last of some stages that leave these shares, each going on from the best of the one before."""
        notes = list[str]()
        for number, share in enumerate(way, 1):
            shown = (
                Prefixed(progress, f"stage {number} of {len(way)}: ") if len(way) > 1 else progress
            )
            every = self._tried(stage, share, shown)
            best = min(every, key=lambda trial: trial.error)
            stage = best.fitted
            notes += [*best.raw.notes, self._note(way, share, every)]
        return replace(best, notes=tuple(notes))

    def _tried(self, stage: Stage[ChannelsKept], share: float, progress: Progress) -> list[Reached]:
        line = self._line
        found = []
        for raw in line.alternatives(
            stage, 1 - share, self._used, progress, self._clock, self._ways
        ):
            fitted, done = self._fitted(raw, self._used, progress, aside=self._aside)
            found.append(Reached(raw, fitted, done, self._outputs.moved(fitted.model)))
        return found

    def _on_all(self, best: Reached, progress: Progress) -> Reached:
        """Re-fitted on the samples that judged it, too."""
        fitted, done = best.fitted, best.refitted
        if self._used is not self._every:
            known = [each.shrinkage * len(self._used) / len(self._every) for each in done]
            fitted, done = self._fitted(best.raw, self._every, progress, shrinkages=known)
        note = f"{len(done)} weights were re-fitted on {len(self._every)} samples"
        notes = tuple(dict.fromkeys((*best.notes, note)))
        return replace(best, fitted=replace(fitted, notes=notes), refitted=done)

    def _fitted(
        self,
        stage: Stage[ChannelsKept],
        data: Dataset,
        progress: Progress,
        aside: Dataset | None = None,
        shrinkages: Sequence[float] | None = None,
    ) -> tuple[Stage[ChannelsKept], list[Refitted]]:
        """The stage with a model of its own, re-fitted, and how."""
        model = clone(stage.model)
        with self._clock.step("recover"):
            done = fit(
                self._line.tracing,
                stage.gone,
                model,
                data,
                progress,
                self._options.providers,
                self._options.seed,
                None if aside is data else aside,
                shrinkages,
            )
        return Stage(model, stage.gone), done

    def _note(self, way: Sequence[float], share: float, every: Sequence[Reached]) -> str:
        assert self._options.target is not None
        errors = sorted(trial.error for trial in every)
        kind = "in stages" if len(way) > 1 else "at once"
        return (
            f"{kind}, to {share:.3f} of the {self._options.target.kind}: the outputs moved by {errors[0]:.3g} with the"
            f" best of {len(errors)} cuts, by {errors[-1]:.3g} with the worst"
        )
