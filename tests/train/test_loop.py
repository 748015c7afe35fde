"""The loop around the step, with a loss on the samples held aside that is told to it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxprune.train import SGD, Runner, Source, Trained, objective
from onnxprune.train.loop import LOWER, Evaluated, train
from onnxprune.train.schedules import constant
from tests.train.steps import digits, step_of

RATE = 1e-3


def told(losses: Sequence[float], *, trial: int, lowerings: int = 4) -> tuple[Trained, Runner]:
    """A training whose state is worth these losses, one after the other: the start, then every epoch that is run."""
    model, data = digits("lstm")
    data = data.take(32)
    runner = Runner(step_of(model, data, SGD(0.9)), threads=1)
    answers = iter(losses)
    found = train(
        runner,
        Source(data, objective(model, data)),
        lambda _runner: Evaluated(next(answers)),
        epochs=4,
        batch=16,
        rate=RATE,
        schedule=constant,
        lowerings=lowerings,
        trial=trial,
    )
    assert next(answers, None) is None
    return found, runner


def test_a_rate_that_has_not_helped_by_the_end_of_its_trial_is_lowered() -> None:
    found, runner = told([1.0, 0.9, 1.1, 0.95, 0.8, 0.7, 0.75], trial=2)
    assert (found.lowered, found.rate) == (1, RATE / LOWER)
    assert [epoch.evaluated.loss for epoch in found.epochs] == [0.95, 0.8, 0.7, 0.75]
    assert (found.best_epoch, found.best.loss) == (3, 0.7)
    straight, other = told([1.0, 0.95, 0.8, 0.7, 0.75], trial=2)
    assert not straight.lowered
    assert other.count == runner.count  # counted from the start of the rate that was kept


@pytest.mark.parametrize("trial", [0, 3])
def test_before_the_end_of_the_trial_and_without_one_the_loss_may_grow(trial: int) -> None:
    found, _ = told([1.0, 2.0, 1.5, 0.9, 1.2], trial=trial)
    assert not found.lowered
    assert found.best_epoch == 3


def test_a_first_epoch_that_undoes_the_model_is_enough() -> None:
    found, _ = told([1.0, 5.0, 4.5, 0.9, 0.8, 0.7, 0.6], trial=0)
    assert found.lowered == 2
    assert found.rate == pytest.approx(RATE / LOWER**2)


def test_in_the_end_the_lowest_rate_is_kept_and_the_start_counts() -> None:
    found, _ = told([1.0, 9.0, 9.0, 9.0, 9.0, 9.0], trial=1, lowerings=1)
    assert found.lowered == 1
    assert found.best_epoch == 0
    np.testing.assert_equal(found.best.loss, 1.0)
