"""How far outputs have moved, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.scores.distance import Reference, distance, scores_classes

LOGITS = np.log(np.array([[0.5, 0.5], [0.9, 0.1]]))


def test_scores_of_classes_move_by_their_divergence() -> None:
    after = np.log(np.array([[0.25, 0.75], [0.9, 0.1]]))
    expected = 0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)
    assert distance(LOGITS, after) == pytest.approx(expected)
    assert distance(np.exp(LOGITS), np.exp(after)) == pytest.approx(expected)
    assert distance(LOGITS, LOGITS + 7) == pytest.approx(0)


def test_maps_move_by_their_squares() -> None:
    maps = np.arange(24.0).reshape(2, 3, 2, 2)
    assert not scores_classes(maps)
    assert distance(maps, maps + 2) == pytest.approx(24 * 4)


def test_the_reference_is_relative_to_samples_or_to_squares_about_the_mean() -> None:
    maps = np.random.default_rng(0).normal(3, 2, (8, 3, 2, 2))
    moved = Reference([[maps[:4]], [maps[4:]]]).moved([[2 * maps[:4]], [2 * maps[4:]]])
    assert moved == pytest.approx((maps**2).sum() / ((maps - maps.mean(0)) ** 2).sum())
    scores = Reference([[LOGITS]])
    after = np.log(np.array([[0.25, 0.75], [0.9, 0.1]]))
    assert scores.moved([[after]]) == pytest.approx(distance(LOGITS, after) / 2)


def test_scores_of_any_size_tell_a_small_error_from_a_large_one() -> None:
    """A softmax of scores in the thousands is one class and no other, whatever the error."""
    rng = np.random.default_rng(0)
    scores, error = 2000 * rng.normal(size=(50, 10)), rng.normal(size=(50, 10))
    reference = Reference([[scores]])
    small, large = (reference.moved([[scores + each * error]]) for each in (10, 200))
    assert 1e-7 < small < large / 100


def test_outputs_whose_size_the_data_decide() -> None:
    """Rows that are as long for all samples are compared, and count as gone where there are other ones."""
    rows = np.random.default_rng(0).normal(0, 1, (5, 3, 2))
    assert Reference([[rows[:2]], [rows[2:]]]).compares
    assert not Reference([[rows[:, :2]], [rows]]).compares
    assert not Reference([[np.float32(1)]]).compares
    both = Reference([[rows, rows[:, :2]], [rows, rows]])
    assert both.moved([[rows, rows], [rows, rows]]) == 0
    gone = Reference([[rows]]).moved([[rows[:3]]])
    assert gone == pytest.approx((rows**2).sum() / ((rows - rows.mean(0)) ** 2).sum())


def test_what_is_no_number_has_moved_infinitely() -> None:
    rows = np.ones((2, 3, 2), np.float32)
    assert Reference([[rows]]).moved([[rows * np.nan]]) == np.inf
