"""What must be left of a model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onnxprune.errors import OptionError

__all__ = ["KINDS", "Target", "parse_target"]

KINDS = ("macs", "params", "bytes", "latency", "drop")


@dataclass(frozen=True)
class Target:
    """What may be left, as a fraction of the original, or what of its accuracy may be lost.

    Attributes:
        kind: `macs`, `params`, `bytes`, `latency` or `drop`.
        value: The fraction, above 0 and at most 1; of `drop` below 1.
    """

    kind: str
    value: float

    def __str__(self) -> str:
        return f"{self.kind}={self.value:g}"


def parse_target(text: str) -> Target:
    """The target in `macs=0.5`.

    Raises:
        OptionError: It is no such text.
    """
    kind, equals, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not equals or kind.strip() not in KINDS or not 0 < value <= 1:
        kinds = ", ".join(f"{each}=0.5" for each in KINDS)
        raise OptionError(
            f"a target is one of {kinds}, a fraction above 0 and at most 1, not {text!r}"
        )
    return Target(kind.strip(), value)
