"""Signed sums: what goes next depends on what has gone."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Dim, Keep
from onnxprune.sampling import Forms, Quadratic, SignedSums


def summed(dim: Dim, rows: np.ndarray) -> Quadratic:
    forms = Forms([dim])
    for row in rows:
        forms.add({dim: row})
    return forms.means()


def test_the_losses_add_up_to_the_square_of_the_signed_sum() -> None:
    rng, dim = np.random.default_rng(0), Dim(9)
    rows = rng.standard_normal((20, 9))
    sums, gone, total = SignedSums([dim], lambda _: summed(dim, rows), 1.0), list[int](), 0.0
    for count in (1, 2, 3):
        indices, _ = sums.cheapest(dim, count)
        total += sums.remove(dim, indices)
        gone += indices.tolist()
        np.testing.assert_allclose(total, (rows[:, gone].sum(1) ** 2).mean(), rtol=1e-9)


def test_two_indices_that_do_the_same_do_not_both_go_cheaply() -> None:
    dim = Dim(3)
    rows = np.array([[1.0, 1.0, 1.5], [1.0, 1.0, -1.5]])
    sums = SignedSums([dim], lambda _: summed(dim, rows), 1.0)
    first, _ = sums.cheapest(dim, 1)
    sums.remove(dim, first)
    second, _ = sums.cheapest(dim, 1)
    assert first.tolist() == [0]
    assert second.tolist() == [2]


def test_far_away_the_loss_is_of_what_really_moved() -> None:
    """Outcomes that bend: y = (sum of the gates' values)^2."""
    values, dims, asked = np.array([[3.0, 1.0], [1.0, 2.0], [0.5, 0.5]]), [Dim(3)], list[Keep]()
    (dim,) = dims

    def sample(keep: Keep) -> Quadratic:
        asked.append(keep)
        open_ = keep.get(dim, np.ones(3, bool))
        forms = Forms(dims)
        for column in values.T:
            total = (open_ * column).sum()
            forms.add({dim: 2 * total * open_ * column}, total**2 - column.sum() ** 2)
        return forms.means()

    sums = SignedSums(dims, sample, 0.1)
    sums.remove(dim, np.array([2]))
    assert sums.neighbours(dim) == {dim}
    losses = sums.losses(dim)
    assert [list(keep.get(dim, [])) for keep in asked] == [[], [True, True, False]]
    for j, loss in enumerate(losses):
        total = values[:2].sum(0)
        moved = total**2 - values.sum(0) ** 2
        predicted = moved - 2 * total * values[j]
        np.testing.assert_allclose(loss, (predicted**2 - moved**2).mean(), rtol=1e-9)
