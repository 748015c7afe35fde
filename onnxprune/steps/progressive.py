"""Progressive pruning: cut a little, let the network recover, look at the accuracy, go on or go back.

Every step prunes the model of the step before by the amount that the schedule says, relative to the original, and
proves that exact; then the model is repaired towards the original, and evaluated on samples that neither saw. With a
target on the accuracy a step that does not hold is taken back, and the next one goes half as far.

`rewind="weights"` gives the weights that survive a step the original's values again before they are repaired: Frankle
et al. 2019, arXiv:1903.01611 (stabilizing the lottery ticket); Renda et al. 2020, arXiv:2003.02389 (comparing rewinding
and fine-tuning).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise

import onnx_ir as ir

from onnxprune.errors import NothingToPruneError
from onnxprune.options import PruneOptions
from onnxprune.plan.schedule import amounts, final_amount
from onnxprune.progress import Prefixed, Progress
from onnxprune.report import StepRow
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.checkpoint import Checkpoint
from onnxprune.steps.lines import Channels, Stage, line_of
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.recovery import Worker, finished, first_row, split
from onnxprune.steps.training import passes
from onnxprune.steps.trials import Trials, are_made
from onnxprune.validation.yardstick import Yardstick

__all__ = ["next_amount", "progressive", "shares"]

LAST, ENOUGH = 0.75, 8
"""The share of the epochs that the last step gets, and how many at least, where there are so many."""


def progressive(
    model: ir.Model,
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
    clock: Clock,
    checkpoint: Checkpoint | None = None,
) -> Outcome:
    """Prunes in `options.steps` steps.

    Args:
        model: The original, without local functions.
        data: Samples; a part of them is held aside to evaluate on.
        options: What to prune, how far, and how to recover.
        progress: Where long work is shown.
        clock: Adds up the seconds of what is done.
        checkpoint: Where every step is kept; what it holds already is not done again. None keeps them in memory.

    Raises:
        NothingToPruneError: No step loses anything, or none holds the accuracy that is asked for.
        KeyboardInterrupt: The user ended the run; the checkpoint has the steps done by then.
    """
    used, aside = split(data, options)
    line = line_of(model, used, options)
    trials = None
    if isinstance(line, Channels) and are_made(options):
        trials = Trials(line, used, options, clock, options.steps or 1)
    yardstick = Yardstick(model, aside, options.providers)
    count = options.steps or 1
    plan = amounts(final_amount(options), count, options.schedule)
    epochs = shares(passes(used, options), count, searches=options.limits_drop)
    stage = line.start()
    rows: tuple[StepRow, ...] = (first_row(line, yardstick),)
    if checkpoint is not None and checkpoint.begun:
        state = checkpoint.state
        rows = tuple(StepRow(**row) for row in state["rows"])
        gone = line.from_json(state["gone"])
        stage = Stage(checkpoint.model(line.start().model), gone, tuple(state["notes"]))
    while rows[-1].number < count:
        number = rows[-1].number + 1
        shown = Prefixed(progress, f"step {number} of {count}: ")
        worker = Worker(line, options, used, trials, yardstick, shown, clock)
        try:
            new, row = worker.step(stage, number, next_amount(rows, plan), epochs[number - 1])
        except NothingToPruneError:
            if number > 1 and options.limits_drop:  # all that can be cut is, and it holds
                break
            raise
        rows = (*rows, row)
        stage = new if row.held else stage
        if checkpoint is not None:
            state = {"rows": [asdict(each) for each in rows], "gone": line.to_json(stage.gone)}
            model_now = stage.model if row.held else None
            checkpoint.write(number, model_now, {**state, "notes": list(stage.notes)})
            stage = replace(stage, model=checkpoint.model(line.start().model))
    return finished(line, stage, rows, aside, options)


def next_amount(rows: Sequence[StepRow], plan: Sequence[float]) -> float:
    """The fraction that is gone after the next step.

    By the schedule as long as every step holds; then half way between the last that held and the first that did not.
    """
    failed = [1.0 - row.asked for row in rows if not row.held]
    if not failed:
        return plan[len(rows) - 1]
    return (max(1.0 - row.asked for row in rows if row.held) + min(failed)) / 2


def shares(total: int, steps: int, *, searches: bool) -> tuple[int, ...]:
    """Epochs of each step.

    The last step's model is the result, and those before are only to be scored and cut again: they get what it can
    spare. In a search any step's may be the result, and all get as many.

    Args:
        total: Of all steps together.
        steps: How many there are.
        searches: Whether the accuracy decides which step is the last.
    """
    last = total if steps == 1 else min(max(round(LAST * total), ENOUGH), total)
    shared, among = (total, steps) if searches else (total - last, steps - 1)
    ends = [shared * step // max(among, 1) for step in range(among + 1)]
    return (*(after - before for before, after in pairwise(ends)), *([] if searches else [last]))
