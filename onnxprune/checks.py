"""Checks of single options; each raises OptionError, and says by what name the user knows the option."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection
from typing import Any

from onnxprune.errors import OptionError

__all__ = ["at_least", "choice", "known", "not_negative", "share"]


def share(name: str, value: float | None) -> None:
    """A share: at least 0 and below 1; None says nothing."""
    if value is not None and not (_number(name, value) and 0 <= value < 1):
        raise OptionError(f"{name} must be at least 0 and below 1, not {value}")


def not_negative(name: str, value: float | None) -> None:
    """A finite number of at least 0; None says nothing."""
    if value is not None and not (_number(name, value) and math.isfinite(value) and value >= 0):
        raise OptionError(f"{name} must be a finite number of at least 0, not {value}")


def _number(name: str, value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise OptionError(f"{name} must be a number, not {value!r}")
    return True


def at_least(name: str, value: Any, least: int) -> None:
    """A whole number, not below a bound."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise OptionError(f"{name} must be a whole number of at least {least}, not {value!r}")


def choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """One of several texts."""
    if value not in choices:
        raise OptionError(f"unknown {name} {value!r}: choose from {', '.join(choices)}")


def known(given: Collection[str], names: Collection[str]) -> None:
    """Only names that there are."""
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise OptionError(
            f"unknown option {unknown[0]!r}: the options are {', '.join(sorted(names))}"
        )
