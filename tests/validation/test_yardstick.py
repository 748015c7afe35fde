from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from onnxprune.graph import load
from onnxprune.runtime.dataset import Dataset
from onnxprune.validation.accuracy import sample_scores
from onnxprune.validation.right import Scores
from onnxprune.validation.yardstick import Yardstick, drop_of
from tests.models import linear, random


def wrong(n: int, count: int) -> Scores:
    """Scores of n samples, the first few of them wrong."""
    return Scores((np.arange(n) >= count).astype(np.float64), bare=True)


def test_the_bound_of_bare_decisions_as_published() -> None:
    """Half a sample in each cell: 3 right then wrong, 1 wrong then right, of 100."""
    before, after = wrong(100, 1), Scores(np.roll(wrong(100, 3).values, 1), bare=True)
    d = before.values - after.values
    found = drop_of("top-1", before, after)
    assert (found.value, found.before) == (0.97, 0.99)
    assert found.drop == pytest.approx(0.02)
    mean = d.sum() / 102
    error = math.sqrt(((d**2).sum() + 1) / 102 - mean**2) / math.sqrt(102)
    assert found.bound == pytest.approx(mean + 1.645 * error)


@pytest.mark.parametrize(("n", "holds"), [(50, False), (100, False), (200, True)])
def test_no_difference_on_few_samples_is_not_yet_one_percent(n: int, holds: bool) -> None:
    assert (drop_of("top-1", wrong(n, 5), wrong(n, 5)).bound <= 0.01) == holds


def test_pruning_makes_no_model_better() -> None:
    found = drop_of("top-1", wrong(200, 8), wrong(200, 0))
    assert found.drop < 0
    assert found.bound > 0


@pytest.mark.parametrize("labelled", [True, False])
def test_models_are_measured_on_labels_or_on_the_originals_answers(
    tmp_path: Path, labelled: bool
) -> None:
    weight = random(4, 3)
    worse = weight.copy()
    worse[:, 2] = 0
    a, b = (load(linear(tmp_path / f"{k}.onnx", w)) for k, w in enumerate((weight, worse)))
    x = random(60, 4, seed=4)
    own = (x @ weight).argmax(1)
    labels = np.where(np.arange(60) < 6, (own + 1) % 3, own) if labelled else None
    yardstick = Yardstick(a, Dataset({"x": x}, labels))
    same, found = yardstick.measure(a), yardstick.measure(b)
    assert (same.drop, same.value) == (0, 0.9 if labelled else 1)
    right = labels if labels is not None else own
    assert found.value == pytest.approx(float(((x @ worse).argmax(1) == right).mean()))
    assert found.metric == ("top-1" if labelled else "agreement")
    assert found.bound > found.drop


def test_numbers_are_held_against_the_originals_numbers(tmp_path: Path) -> None:
    weight = random(4, 1)
    a, b = (load(linear(tmp_path / f"{k}.onnx", w)) for k, w in enumerate((weight, 0.9 * weight)))
    found = Yardstick(a, Dataset({"x": random(40, 4, seed=1)})).measure(b)
    assert found.metric == "R2"
    assert 0.95 < found.value < 1


def test_scores_of_samples_average_to_r2() -> None:
    targets, noise = random(50, 3), 0.3 * random(50, 3, seed=2)
    expected = 1 - (noise**2).sum() / ((targets - targets.mean(0)) ** 2).sum()
    assert sample_scores(targets + noise, targets).mean() == pytest.approx(expected, rel=1e-5)


def test_a_feed_counts_as_one_where_outputs_do_not_tell_samples_apart(tmp_path: Path) -> None:
    weight = random(4, 1)
    a, b = (load(linear(tmp_path / f"{k}.onnx", w)) for k, w in enumerate((weight, 2 * weight)))
    found = Yardstick(a, Dataset({"x": random(5, 2, 4)}, stacked=True)).measure(b)
    assert (found.metric, found.samples) == ("R2", 5)
    assert found.value < 0.9


def test_numbers_of_a_single_sample_can_be_compared(tmp_path: Path) -> None:
    a = load(linear(tmp_path / "a.onnx", random(4, 1)))
    assert Yardstick(a, Dataset({"x": random(1, 4)})).measure(a).value == 1


def test_what_is_not_finite_is_lost_altogether() -> None:
    for values in ([1, 1, -np.inf, 1, 1], [-1e300] * 5):
        assert drop_of("R2", Scores(np.ones(5)), Scores(np.array(values))).bound == math.inf
    known, bad = Scores(np.ones(3), np.ones(3)), Scores(np.zeros(3), np.array([1.0, np.nan, 1.0]))
    assert drop_of("top-1", known, bad).bound == math.inf
