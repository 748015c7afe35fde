"""Signed sums: what goes next depends on what has gone."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Dim, Keep
from onnxprune.sampling import Forms, SignedSums


def form(dim: Dim, rows: np.ndarray) -> dict[Dim, np.ndarray]:
    forms = Forms([dim])
    for row in rows:
        forms.add({dim: row})
    return forms.means()


def test_the_losses_add_up_to_the_square_of_the_signed_sum() -> None:
    rng, dim = np.random.default_rng(0), Dim(9)
    rows = rng.standard_normal((20, 9))
    sums, gone, total = SignedSums([dim], lambda _: form(dim, rows), 1.0), list[int](), 0.0
    for count in (1, 2, 3):
        indices, _ = sums.cheapest(dim, count)
        total += sums.remove(dim, indices)
        gone += indices.tolist()
        np.testing.assert_allclose(total, (rows[:, gone].sum(1) ** 2).mean(), rtol=1e-9)


def test_two_indices_that_do_the_same_do_not_both_go_cheaply() -> None:
    dim = Dim(3)
    rows = np.array([[1.0, 1.0, 1.5], [1.0, 1.0, -1.5]])
    sums = SignedSums([dim], lambda _: form(dim, rows), 1.0)
    first, _ = sums.cheapest(dim, 1)
    sums.remove(dim, first)
    second, _ = sums.cheapest(dim, 1)
    assert first.tolist() == [0]
    assert second.tolist() == [2]


def test_derivatives_are_taken_anew_once_a_share_has_gone() -> None:
    """Those of y = (sum of the gates' values)^2 change as gates are closed."""
    values, dim, other, asked = np.array([3.0, 1.0, 0.5, 0.5]), Dim(4), Dim(6), list[Keep]()

    def sample(keep: Keep) -> dict[Dim, np.ndarray]:
        asked.append(keep)
        open_ = keep.get(dim, np.ones(4, bool)) * values
        return {**form(dim, 2 * open_.sum() * open_[None]), **form(other, np.ones((1, 6)))}

    sums = SignedSums([dim, other], sample, 0.15)
    np.testing.assert_allclose(sums.losses(dim), (2 * 5 * values) ** 2)
    sums.remove(dim, np.array([0]))
    assert sums.neighbours(dim) == {dim}
    sums.losses(other)
    assert len(asked) == 1
    sums.remove(other, np.array([5]))
    assert sums.neighbours(other) == {dim, other}
    np.testing.assert_allclose(sums.losses(dim), (2 * 2 * values[1:]) ** 2)
    assert [mask.tolist() for mask in asked[1].values()] == [
        [False, True, True, True],
        [True] * 5 + [False],
    ]
