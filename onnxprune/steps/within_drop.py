"""The smallest model that loses no more accuracy than is allowed: a bisection over what is left.

Every model tried is made from the original as any target is reached (see `trials`), and evaluated on samples that
nothing else saw; it holds where the upper end of the interval around its drop does (see `validate.yardstick`). The more
samples, the narrower that is and the further the search gets.
"""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.errors import NothingToPruneError
from onnxprune.options import PruneOptions
from onnxprune.progress import Prefixed, Progress
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.lines import Channels, line_of
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.recovery import Worker, finished, first_row, split
from onnxprune.steps.training import passes
from onnxprune.steps.trials import Trials, are_made
from onnxprune.validation.yardstick import Yardstick

__all__ = ["within_drop"]

PROBES = 6
"""Models tried: what is left of the best is known to 1/64 of the original."""


def within_drop(
    model: ir.Model, data: Dataset, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Searches for the smallest model within `options.target`, of the kind `drop`.

    Args:
        model: The original, without local functions.
        data: Samples; half of them are held aside to evaluate on.
        options: What to prune, how much may be lost, and how to recover.
        progress: Where long work is shown.
        clock: Adds up the seconds of what is done.

    Raises:
        NothingToPruneError: No model tried holds; says how close one came.
    """
    used, aside = split(data, options)
    line = line_of(model, used, options)
    trials = None
    if isinstance(line, Channels) and are_made(options):
        trials = Trials(line, used, options, clock, PROBES)
    yardstick = Yardstick(model, aside, options.providers)
    epochs = passes(used, options)
    best, rows = line.start(), [first_row(line, yardstick)]
    held, failed = 0.0, 1.0  # fractions of the original that are gone
    for number in range(1, PROBES + 1):
        shown = Prefixed(progress, f"model {number} of {PROBES}: ")
        worker = Worker(line, options, used, trials, yardstick, shown, clock)
        amount = (held + failed) / 2
        try:
            found, row = worker.step(line.start(), number, amount, epochs)
        except NothingToPruneError:  # so much cannot be cut at all
            failed = amount
            continue
        rows.append(row)
        if row.held:
            best, held = found, amount
        else:
            failed = amount
    return finished(line, best, tuple(rows), aside, options)
