"""One step of a line: prune further, see what that cost, repair, see what came back."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from onnxprune.errors import NothingToPruneError
from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.report import StepRow
from onnxprune.report.timing import Clock
from onnxprune.report.training import training_notes
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.steps.lines import Line, Stage
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.repair import samples_to_fit
from onnxprune.steps.training import training_options
from onnxprune.steps.trials import Trials
from onnxprune.train.recovery import reestimated, retrained
from onnxprune.validation.yardstick import Drop, Yardstick

__all__ = ["Worker", "finished", "first_row", "holds", "split"]

SHARE, MOST = 0.2, 1000
"""Of the samples, held aside to evaluate on, and how many at most: an accuracy's standard error is below 1.6 % then."""
SHARE_OF_A_SEARCH, MOST_OF_A_SEARCH = 0.5, 5000
"""The same where the evaluation decides how far to go."""


def split(data: Dataset, options: PruneOptions) -> tuple[Dataset, Dataset]:
    """The samples to prune and repair with, and those to evaluate on, which nothing else ever sees.

    Raises:
        DataError: There are too few.
    """
    share, most = (SHARE_OF_A_SEARCH, MOST_OF_A_SEARCH) if options.limits_drop else (SHARE, MOST)
    return hold_aside(data, min(share, most / len(data)), options.seed)


@dataclass(frozen=True)
class Worker:
    """What every step of a run has in common.

    Attributes:
        line: How models follow each other.
        options: Of the run.
        used: The samples to prune and repair with.
        trials: What chooses the widths by trying; None: they are chosen once.
        yardstick: What evaluates.
        progress: Where long work is shown.
        clock: Adds up the seconds of what is done.
    """

    line: Line[Any]
    options: PruneOptions
    used: Dataset
    trials: Trials | None
    yardstick: Yardstick
    progress: Progress
    clock: Clock

    def step(
        self, stage: Stage[Any], number: int, amount: float, epochs: int
    ) -> tuple[Stage[Any], StepRow]:
        """The next stage, evaluated before and after its repair.

        Args:
            stage: Where to go on from.
            number: Of the step.
            amount: The fraction of the original that is gone after it.
            epochs: Of training, where the run trains.

        Raises:
            KeyboardInterrupt: The user ended the training of the step.
        """
        began = time.perf_counter()
        raw, fitted = self._fitted(stage, amount)
        cut = self._evaluated(raw)
        new = self._trained(fitted, epochs)
        after = cut if new is raw else self._evaluated(new)
        return new, self._row(number, amount, new, cut, after, time.perf_counter() - began)

    def _evaluated(self, stage: Stage[Any]) -> Drop:
        with self.clock.step("evaluate"):
            return self.yardstick.measure(stage.model)

    def _fitted(self, stage: Stage[Any], amount: float) -> tuple[Stage[Any], Stage[Any]]:
        """The next stage before and after its repair in closed form, if there is one: always against the original."""
        if self.trials is not None:
            found = self.trials.reach(stage, 1.0 - amount, self.progress)
            return found.raw, found.fitted
        raw = self.line.further(stage, amount, self.used, self.progress, self.clock)
        if self.options.rewind == "weights":
            raw = replace(raw, model=self.line.rewound(raw.gone))
        options = self.options
        if not options.repairs or (options.recover == "finetune" and not options.cuts):
            return raw, raw
        data = samples_to_fit(self.used, self.options)
        fitted = replace(raw, model=clone(raw.model))
        with self.clock.step("recover"):
            note = self.line.refit(fitted, data, self.progress)
        return raw, replace(fitted, notes=(*raw.notes, note))

    def _trained(self, stage: Stage[Any], epochs: int) -> Stage[Any]:
        """The stage after training or the re-estimation of its statistics, where the options have one."""
        recover = self.options.recover
        if recover == "bn":
            model = clone(stage.model)
            with self.clock.step("train"):
                note = reestimated(model, self.used, self.progress, self.options.providers)
            return replace(stage, model=model, notes=(*stage.notes, note))
        if recover != "finetune" or not epochs:
            return stage
        train = replace(training_options(self.options, stage.model), epochs=epochs)
        with self.clock.step("train"):
            original, kept = self.line.start().model, self.line.kept(stage.gone)
            found = retrained(original, stage.model, self.used, train, self.progress, kept)
        if found.trained.interrupted:
            raise KeyboardInterrupt
        return replace(stage, model=found.model, notes=(*stage.notes, *training_notes(found)))

    def _row(
        self,
        number: int,
        amount: float,
        stage: Stage[Any],
        cut: Drop,
        after: Drop,
        seconds: float,
    ) -> StepRow:
        cost = self.line.cost(stage)
        return StepRow(
            number=number,
            asked=1.0 - amount,
            params=cost.params,
            macs=cost.macs,
            zeros=cost.zeros,
            metric=after.metric,
            cut=cut.value,
            recovered=after.value,
            drop=after.drop,
            bound=after.bound,
            samples=after.samples,
            held=holds(after, self.options),
            seconds=seconds,
        )


def first_row(line: Line[Any], yardstick: Yardstick) -> StepRow:
    """The original, as the row before the first step."""
    stage = line.start()
    cost, own = line.cost(stage), yardstick.measure(stage.model)
    return StepRow(
        number=0,
        asked=1.0,
        params=cost.params,
        macs=cost.macs,
        zeros=cost.zeros,
        metric=own.metric,
        recovered=own.value,
        samples=own.samples,
    )


def holds(found: Drop, options: PruneOptions) -> bool:
    """Whether a drop, at the upper end of its interval, is one that the target allows; any is without such a target."""
    target = options.target
    return target is None or target.kind != "drop" or found.bound <= target.value


def finished(
    line: Line[Any],
    stage: Stage[Any],
    rows: tuple[StepRow, ...],
    aside: Dataset,
    options: PruneOptions,
) -> Outcome:
    """The last stage that held as the result.

    Raises:
        NothingToPruneError: None did, or nothing is gone.
    """
    failed = [row for row in rows if not row.held]
    if failed and not any(row.held for row in rows[1:]):
        raise NothingToPruneError(_refusal(min(failed, key=lambda row: row.bound), options))
    note = (
        f"{len(aside)} of the samples were held aside: accuracy, drift and the steps' figures are"
        f" on them, pruning and repair on the others"
    )
    done = line.outcome(stage)
    return replace(done, steps=rows, aside=aside, notes=(*done.notes, note))


def _refusal(row: StepRow, options: PruneOptions) -> str:
    what = "MACs" if options.cuts else "weights"
    return (
        f"the target {options.target} is out of reach: with {row.asked:.3f} of the {what} left {row.metric} goes from"
        f" {row.recovered + row.drop:.4f} to {row.recovered:.4f} on the {row.samples} samples held aside, and may fall"
        f" by {row.bound:.4f} on others: allow more, or give more samples"
    )
