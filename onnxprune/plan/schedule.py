"""How much of what is to go has gone after each step of progressive pruning.

With s the fraction to remove in the end and u = t / n the share of the steps that are done:

    linear        s u
    cubic         s (1 - (1 - u)^3)     much at first, while there is much to spare; Zhu and Gupta 2017,
                                        arXiv:1710.01878, equation 1
    exponential   1 - (1 - s)^u         the same share of what is left at every step; Han et al. 2015,
                                        arXiv:1506.02626; Renda et al. 2020, arXiv:2003.02389

All fractions are of the original.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from onnxprune.errors import OptionError
from onnxprune.options import PruneOptions

__all__ = ["SCHEDULES", "Schedule", "amounts", "cubic", "exponential", "final_amount", "linear"]

Schedule = Callable[[float, float], float]
"""`gone(final, share)`: the fraction that is gone when a share of the steps is done, both in [0, 1]."""


def linear(final: float, share: float) -> float:
    """The same amount at every step."""
    return final * share


def cubic(final: float, share: float) -> float:
    """Much at first, ever less."""
    return final * (1.0 - (1.0 - share) ** 3)


def exponential(final: float, share: float) -> float:
    """The same share of what is left at every step."""
    return 1.0 - float((1.0 - final) ** share)


DEEPEST, SPARSEST = 0.9, 0.95
"""Of the MACs, and of the weights, that are gone after the last step where only the accuracy says how far to go."""
SCHEDULES: Mapping[str, Schedule] = {
    "linear": linear,
    "cubic": cubic,
    "exponential": exponential,
}


def amounts(final: float, steps: int, schedule: str) -> tuple[float, ...]:
    """The fractions of the original that are gone after each step, rising to `final`.

    Args:
        final: The fraction to remove, 0 <= final < 1.
        steps: How many steps, at least 1.
        schedule: One of `SCHEDULES`.

    Raises:
        OptionError: There is no schedule of that name.
    """
    if schedule not in SCHEDULES:
        raise OptionError(f"unknown schedule {schedule!r}: choose from {', '.join(SCHEDULES)}")
    gone = SCHEDULES[schedule]
    return (*(gone(final, step / steps) for step in range(1, steps)), final)


def final_amount(options: PruneOptions) -> float:
    """The fraction that is gone after the last step: of the target's currency, or of the channels or weights."""
    target = options.target
    if target is None:
        return options.fraction
    if target.kind == "drop":
        return DEEPEST if options.cuts else SPARSEST
    return 1.0 - target.value
