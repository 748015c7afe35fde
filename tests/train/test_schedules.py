from __future__ import annotations

import math

import pytest

from onnxprune.errors import OptionError
from onnxprune.train.schedules import constant, cosine, one_cycle, schedule, warmed_up


def test_cosine_goes_from_one_almost_to_zero() -> None:
    assert cosine(0, 100) == 1.0
    assert cosine(50, 100) == pytest.approx(0.5)
    assert cosine(99, 100) == pytest.approx(0.5 * (1 + math.cos(0.99 * math.pi)))


def test_one_cycle_is_pytorchs() -> None:
    # torch.optim.lr_scheduler.OneCycleLR(SGD([p], 1.0), max_lr=1.0, total_steps=10), its first rates.
    expected = [
        0.04,
        0.52,
        1.0,
        0.950484632,
        0.811745654,
        0.611262022,
        0.388741978,
        0.188258346,
        0.049519368,
        4e-06,
    ]
    assert [one_cycle(k, 10) for k in range(10)] == pytest.approx(expected, rel=1e-6)


def test_warm_up_rises_in_equal_steps_and_then_follows() -> None:
    factor = warmed_up(cosine, 4)
    assert [factor(k, 14) for k in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert [factor(4 + k, 14) for k in range(10)] == [cosine(k, 10) for k in range(10)]


def test_schedules_by_name() -> None:
    assert schedule("constant") is constant
    assert schedule("constant", 1)(0, 5) == 0.5
    with pytest.raises(OptionError, match="choose from"):
        schedule("linear-ish")
