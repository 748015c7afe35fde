from __future__ import annotations

from itertools import pairwise

import pytest

from onnxprune.errors import OptionError
from onnxprune.plan.schedule import SCHEDULES, amounts


def test_linear_steps_are_equal() -> None:
    assert amounts(0.5, 4, "linear") == pytest.approx((0.125, 0.25, 0.375, 0.5))


def test_cubic_as_published() -> None:
    """Zhu and Gupta 2017, equation 1, from no sparsity at the start."""
    expected = [0.9 + (0.0 - 0.9) * (1 - t / 5) ** 3 for t in range(1, 6)]
    assert amounts(0.9, 5, "cubic") == pytest.approx(expected)


def test_exponential_takes_the_same_share_of_what_is_left() -> None:
    left = [1.0, *(1 - gone for gone in amounts(0.8, 4, "exponential"))]
    assert [b / a for a, b in pairwise(left)] == pytest.approx([0.2**0.25] * 4)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("final", [0.0, 0.3, 0.99])
def test_amounts_rise_to_what_was_asked_for_exactly(schedule: str, final: float) -> None:
    found = amounts(final, 7, schedule)
    assert list(found) == sorted(found)
    assert len(found) == 7
    assert found[-1] == final
    assert amounts(final, 1, schedule) == (final,)


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(OptionError, match="linear, cubic, exponential"):
        amounts(0.5, 2, "sigmoid")
