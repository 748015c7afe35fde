"""Learning rate schedules: what the rate is multiplied by, from the step and the number of steps.

Every schedule is a function from 0-based step and total to a factor. `warmed_up` puts a linear warm-up
(Goyal et al. 2017, arXiv:1706.02677) in front of any of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from onnxprune.errors import OptionError

__all__ = ["SCHEDULES", "Schedule", "constant", "cosine", "one_cycle", "schedule", "warmed_up"]

Schedule = Callable[[int, int], float]
"""`factor(step, total)`, with 0 <= step < total."""


def constant(step: int, total: int) -> float:
    """Always 1."""
    return 1.0


def cosine(step: int, total: int) -> float:
    """From 1 down half a cosine to almost 0; Loshchilov and Hutter 2017, arXiv:1608.03983."""
    return 0.5 * (1.0 + math.cos(math.pi * step / max(total, 1)))


def one_cycle(
    step: int, total: int, *, rise: float = 0.3, start: float = 1 / 25, end: float = 1 / 25e4
) -> float:
    """Up from `start` to 1 in the share `rise` of the steps, down to `end`, by half cosines.

    Smith and Topin 2018, arXiv:1708.07120, with the defaults of PyTorch's OneCycleLR.
    """
    peak = rise * total - 1.0
    last = total - 1.0
    if step <= peak:
        return _between(start, 1.0, step / peak if peak else 1.0)
    return _between(1.0, end, (step - peak) / (last - peak) if last > peak else 1.0)


def warmed_up(inner: Schedule, steps: int) -> Schedule:
    """`inner` after `steps` steps in which the factor rises linearly to its first value."""

    def factor(step: int, total: int) -> float:
        if step < steps:
            return inner(0, max(total - steps, 1)) * (step + 1) / (steps + 1)
        return inner(step - steps, max(total - steps, 1))

    return factor


SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "one-cycle": one_cycle,
}


def schedule(name: str, warmup: int = 0) -> Schedule:
    """A schedule by name, behind `warmup` steps of warm-up.

    Raises:
        OptionError: There is no schedule of that name.
    """
    if name not in SCHEDULES:
        raise OptionError(f"unknown schedule {name!r}: choose from {', '.join(SCHEDULES)}")
    return warmed_up(SCHEDULES[name], warmup) if warmup else SCHEDULES[name]


def _between(first: float, last: float, share: float) -> float:
    return last + (first - last) / 2.0 * (1.0 + math.cos(math.pi * share))
