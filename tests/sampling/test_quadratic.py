"""Signed sums: what goes next depends on what has gone."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dims import Dim, Keep
from onnxprune.sampling import Forms, Quadratic, SignedSums, Way


def summed(dim: Dim, rows: np.ndarray) -> Quadratic:
    forms = Forms([dim])
    for row in rows:
        forms.add({dim: row})
    return forms.means()


def test_the_losses_add_up_to_the_square_of_the_signed_sum() -> None:
    rng, dim = np.random.default_rng(0), Dim(9)
    rows = rng.standard_normal((20, 9))
    sums, gone, total = SignedSums([dim], lambda _: summed(dim, rows), Way(1.0)), list[int](), 0.0
    for count in (1, 2, 3):
        indices, _ = sums.cheapest(dim, count)
        total += sums.remove(dim, indices)
        gone += indices.tolist()
        np.testing.assert_allclose(total, (rows[:, gone].sum(1) ** 2).mean(), rtol=1e-9)


def test_two_indices_that_do_the_same_do_not_both_go_cheaply() -> None:
    dim = Dim(3)
    rows = np.array([[1.0, 1.0, 1.5], [1.0, 1.0, -1.5]])
    sums = SignedSums([dim], lambda _: summed(dim, rows), Way(1.0))
    first, _ = sums.cheapest(dim, 1)
    sums.remove(dim, first)
    second, _ = sums.cheapest(dim, 1)
    assert first.tolist() == [0]
    assert second.tolist() == [2]


@pytest.mark.parametrize("joins", [False, True])
def test_derivatives_are_taken_anew_once_a_share_has_gone(joins: bool) -> None:
    """Those of y = (sum of the gates' values)^2 change as gates are closed."""
    values, dim, other = np.array([[3.0, 1.0, 0.5], [0.5, 2.0, 1.0]]), Dim(3), Dim(7)
    asked = list[Keep]()

    def sample(keep: Keep) -> Quadratic:
        asked.append(keep)
        forms = Forms([dim, other])
        for row in values:
            left = keep.get(dim, np.ones(3, bool)) * row
            moved = left.sum() ** 2 - row.sum() ** 2
            forms.add({dim: 2 * left.sum() * left, other: np.ones(7)}, moved)
        return forms.means()

    sums = SignedSums([dim, other], sample, Way(0.15, joins))
    totals = values.sum(1, keepdims=True)
    np.testing.assert_allclose(sums.losses(dim), ((2 * totals * values) ** 2).mean(0))
    sums.remove(dim, np.array([0]))
    assert sums.neighbours(dim) == {dim}
    sums.losses(other)
    assert len(asked) == 1
    sums.remove(other, np.array([6]))
    assert sums.neighbours(other) == {dim, other}
    now = values[:, 1:].sum(1, keepdims=True)
    t, r = 2 * now * values[:, 1:], now**2 - totals**2
    expected = ((r - t) ** 2 - r**2 if joins else t**2).mean(0)
    np.testing.assert_allclose(sums.losses(dim), expected)
    assert asked[1][dim].tolist() == [False, True, True]
