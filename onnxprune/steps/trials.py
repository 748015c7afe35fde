"""To a target in stages, each the best of a few: what a prediction cannot tell is tried.

What a channel is worth is predicted where the model stands, and the further a cut goes the less that holds. So a large
cut is made of some smaller ones, each predicted anew on the model that the one before has left, repaired. And at every
stage a few cuts are made (`onnxprune.steps.candidates` lists how); those that come out best are re-fitted, and the one
goes on whose outputs are nearest to the original's then, on samples that neither chose nor repaired it. Where a trial
takes little, more are made, and some of all in one cut: what went at a stage does not come back. On the best that comes
out other repairs are tried, and what does best is done once more, on all samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Contraction, contractions
from onnxprune.calibrate.moments import rows_looked_at
from onnxprune.graph import clone
from onnxprune.options import Channel, PruneOptions
from onnxprune.plan.channels import macs_left
from onnxprune.progress import Prefixed, Progress
from onnxprune.recover import Original, Refitted, correct_biases, fit
from onnxprune.report import TrialRow
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.scores.moved import Outputs
from onnxprune.steps.candidates import CHEAP, MOVES, REFITTED, SAME, Repair, recipes, repairs
from onnxprune.steps.lines import Channels, ChannelsKept, Stage
from onnxprune.steps.repair import samples_to_fit
from onnxprune.train.augment import copies, is_images
from onnxprune.train.harmless import recognised

__all__ = ["Reached", "Trials", "are_made", "route"]

STAGE = 0.82
"""What a stage leaves of a model, about."""
MOST_STAGES = 3
LAYER = 5e7
"""MACs that it takes as long to compute as to handle a layer."""
CHEAP_FITS, SYSTEMS = 5e10, 5
"""MACs of fitting all layers once up to which trials are cheap, and how many rows a column the equations are worth."""
ASIDE = 0.25
FEW, SPLITS = 400, 4
"""Samples up to which cheap trials are judged by so many splits: a quarter of them tells two cuts apart by chance."""
FEWEST = 16
"""With fewer samples than this, what was fitted on them is judged on them."""
NONE = Repair("none")


def are_made(options: PruneOptions) -> bool:
    """Whether widths are free, priced by `obs`, and repaired towards what a target leaves."""
    return (
        isinstance(options.granularity, Channel)
        and options.criterion == "obs"
        and options.target is not None
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


@dataclass(frozen=True)
class Reached:
    """A cut, repaired.

    Attributes:
        raw: Before the repair.
        fitted: After it.
        refitted: What a re-fit did; nothing where only biases were corrected.
        repair: How it was repaired.
        error: How far the outputs are from the original's.
    """

    raw: Stage[ChannelsKept]
    fitted: Stage[ChannelsKept]
    refitted: Sequence[Refitted]
    repair: Repair
    error: float


class Trials:
    """Samples to fit on, samples to judge on, and what is tried.

    Args:
        line: The original.
        data: Samples, without labels.
        options: What to prune, how far, and how it is recovered.
        clock: Adds up the seconds of what is done.
        runs: How many shares are going to be reached.
    """

    def __init__(
        self,
        line: Channels,
        data: Dataset,
        options: PruneOptions,
        clock: Clock,
        runs: int = 1,
    ) -> None:
        self._line, self._options, self._clock = line, options, clock
        every = samples_to_fit(data, options)
        effort = macs_left(line.tracing, {}) * len(every) * runs
        layers = contractions(line.tracing)
        cheap = effort <= CHEAP and sum(map(_fit_effort, layers)) * runs <= CHEAP_FITS
        self._splits: list[tuple[Dataset, ...]] = [(every,)]
        if every.can_spare(FEWEST):
            number = SPLITS if cheap and len(every) <= FEW else 1
            seeds = range(options.seed, options.seed + number)
            self._splits = [hold_aside(every, ASIDE, seed) for seed in seeds]
        self._recipes = recipes(options, effort + LAYER * len(layers) * runs)
        self._repairs = repairs(options, self._moves(every) if cheap else ())
        model = line.start().model
        self._judges = [Outputs(model, parts[-1], options.providers) for parts in self._splits]
        self._originals = dict[tuple[Repair, int], Original]()

    def _moves(self, data: Dataset) -> tuple[str, ...]:
        """How images may be moved and still be what they were; empty where they may not."""
        if data.stacked or not any(is_images(array) for array in data.inputs.values()):
            return ()
        model, options = self._line.start().model, self._options

        def same(ways: tuple[str, ...]) -> float:
            return recognised(model, data, ways, options.providers, options.seed)

        return next((ways for ways in MOVES if same(ways) >= SAME), ())

    def reach(self, stage: Stage[ChannelsKept], share: float, progress: Progress) -> Reached:
        """The best cut found that leaves a share of the original, repaired on all samples.

        Args:
            stage: Where to go on from.
            share: What is left, in the currency of the target.
            progress: Where long work is shown.

        Raises:
            NothingToPruneError: Nothing can be cut, or the share is out of reach.
        """
        routes = [route(self._line.left(stage), share)]
        tilted = any(recipe.pricing.tilt for recipe in self._recipes)
        if tilted and len(routes[0]) > 1:
            routes.append((share,))
        ends = [self._along(each, stage, progress) for each in routes]
        best = min(ends, key=lambda end: end.error)
        others = [self._repaired(best.raw, each, progress) for each in self._repairs[1:]]
        found = min((best, *others), key=lambda trial: trial.error)
        rows = [row for end in ends for row in end.fitted.trials]
        rows += _rows("repair", share, others, found)
        return self._on_all(found, best.fitted.notes, tuple(rows), progress)

    def _along(
        self, shares: Sequence[float], stage: Stage[ChannelsKept], progress: Progress
    ) -> Reached:
        """The last of some stages that leave these shares, each going on from the best of the one before."""
        rows, notes = list[TrialRow](), list[str]()
        for number, share in enumerate(shares, 1):
            name = f"{number} of {len(shares)}" if len(shares) > 1 else "at once"
            shown = Prefixed(progress, f"stage {name}: ") if len(shares) > 1 else progress
            every = self._tried(stage, share, shown, last=number == len(shares))
            best = min(every[:REFITTED], key=lambda trial: trial.error)
            rows += _rows(name, share, every, best)
            notes += best.raw.notes
            stage = best.fitted
        return replace(best, fitted=replace(best.fitted, notes=tuple(notes), trials=tuple(rows)))

    def _tried(
        self, stage: Stage[ChannelsKept], share: float, progress: Progress, *, last: bool
    ) -> list[Reached]:
        """Every recipe; the cuts that do best as they are made are re-fitted, and come first."""
        cuts = self._line.alternatives(
            stage, 1 - share, self._splits[0][0], progress, self._clock, self._recipes, last=last
        )
        with self._clock.step("judge"):
            bare = [Reached(raw, raw, (), NONE, self._judges[0].moved(raw.model)) for raw in cuts]
        bare.sort(key=lambda trial: trial.error)
        done = [self._repaired(each.raw, self._repairs[0], progress) for each in bare[:REFITTED]]
        return [*done, *bare[REFITTED:]]

    def _repaired(
        self,
        raw: Stage[ChannelsKept],
        repair: Repair,
        progress: Progress,
        shrinkages: Sequence[float] | None = None,
    ) -> Reached:
        """A cut with a model of its own, repaired; judged by all splits, on other samples than those of the repair."""
        found = list[tuple[ir.Model, Sequence[Refitted]]]()
        with self._clock.step("recover"):
            for split in range(len(self._splits) if shrinkages is None else 1):
                found.append(self._repair(raw, repair, split, progress, shrinkages))
        judged = zip(self._judges, found, strict=False)
        error = float(np.mean([judge.moved(model) for judge, (model, _) in judged]))
        model, refitted = found[0]
        return Reached(raw, Stage(model, raw.gone), refitted, repair, error)

    def _repair(
        self,
        raw: Stage[ChannelsKept],
        repair: Repair,
        split: int,
        progress: Progress,
        shrinkages: Sequence[float] | None,
    ) -> tuple[ir.Model, Sequence[Refitted]]:
        """A cut repaired on the samples that a split does not judge on."""
        if repair.method == "lstsq":
            model = clone(raw.model)
            return model, fit(self._original(repair, split), raw.gone, model, progress, shrinkages)
        model, tracing = self._line.rewound(raw.gone), self._line.tracing
        data, options = self._splits[split][0], self._options
        correct_biases(tracing, raw.gone, model, data, progress, options.providers, options.seed)
        return model, ()

    def _original(self, repair: Repair, split: int) -> Original:
        """The original with the samples of a repair."""
        if (repair, split) not in self._originals:
            options, parts = self._options, self._splits[split]
            if repair.copies:
                random = np.random.default_rng([options.seed, 2])
                times, ways = 1 + repair.copies, repair.moves
                moved = (copies(part.inputs, times, ways, random) for part in parts)
                parts = tuple(
                    replace(p, inputs=m, labels=None) for p, m in zip(parts, moved, strict=True)
                )
            self._originals[repair, split] = Original(
                self._line.tracing, parts, options.providers, options.seed
            )
        return self._originals[repair, split]

    def _on_all(
        self,
        best: Reached,
        notes: Sequence[str],
        rows: tuple[TrialRow, ...],
        progress: Progress,
    ) -> Reached:
        """Re-fitted on the samples that judged it, too."""
        parts = self._splits[0]
        used, every = len(parts[0]), sum(map(len, parts))
        done, what = best, f"biases were corrected on {used} samples"
        if best.repair.method == "lstsq":
            what = f"{len(best.refitted)} weights were re-fitted on {every} samples"
            if len(parts) > 1:
                known = [each.shrinkage * used / every for each in best.refitted]
                done = self._repaired(best.raw, best.repair, progress, known)
        told = tuple(dict.fromkeys((*notes, what)))
        return replace(done, fitted=replace(done.fitted, notes=told, trials=rows))


def _fit_effort(each: Contraction) -> float:
    """MACs of fitting a layer: second moments of what it reads, and a few systems of equations."""
    columns = each.columns
    return each.groups * (rows_looked_at(columns) + SYSTEMS * columns) * columns**2


def _rows(route: str, share: float, every: Sequence[Reached], best: Reached) -> list[TrialRow]:
    return [
        TrialRow(route, share, each.raw.way, str(each.repair), each.error, each is best)
        for each in every
    ]
