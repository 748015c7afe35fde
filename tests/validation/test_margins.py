from __future__ import annotations

import numpy as np
import pytest

from onnxprune.validation.margins import lost, margins


def drawn(n: int, seed: int, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Margins of a classifier, 90 % right, and of a shrunk and noisy copy of it."""
    rng = np.random.default_rng(seed)
    before = rng.normal(2.0, 1.5, n)
    return before, 0.9 * before + rng.normal(0, noise, n)


def truth(noise: float = 0.5) -> float:
    before, after = drawn(2_000_000, 99, noise)
    return float((before > 0).mean() - (after > 0).mean())


def test_margins_of_logits_and_of_probabilities() -> None:
    logits = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 5.0]])
    right = np.array([0, 1])
    assert margins(logits, right) == pytest.approx([2.0, -3.0])
    odds = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert margins(odds, right) == pytest.approx([2.0, -3.0])


def test_what_has_not_changed_has_lost_nothing() -> None:
    before, _ = drawn(50, 0)
    drop, error = lost(before, before)
    assert drop == 0
    assert error == pytest.approx(0, abs=1e-12)


def test_a_copy_that_is_merely_less_sure_has_lost_nothing() -> None:
    before, _ = drawn(50, 0)
    assert lost(before, 0.3 * before)[0] == pytest.approx(0, abs=1e-12)


def test_few_samples_tell_more_than_by_counting() -> None:
    """Of the same 100 samples: half the squared error of the count, and not off to one side."""
    right = truth()
    told, counted = [], []
    for seed in range(300):
        before, after = drawn(100, seed)
        told.append(lost(before, after)[0] - right)
        counted.append((before > 0).mean() - (after > 0).mean() - right)
    assert np.mean(np.square(told)) < 0.5 * np.mean(np.square(counted))
    assert abs(np.mean(told)) < 0.002


def test_the_upper_end_of_the_interval_covers_the_truth() -> None:
    right = truth()
    ends = [drop + 1.645 * error for drop, error in (lost(*drawn(100, s)) for s in range(400))]
    assert 0.9 < np.mean(np.array(ends) >= right) <= 0.99
