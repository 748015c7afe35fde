"""Signed sums: what goes next depends on what has gone."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Dim
from onnxprune.sampling import Forms, SignedSums


def test_the_losses_add_up_to_the_square_of_the_signed_sum() -> None:
    rng, dim = np.random.default_rng(0), Dim(9)
    rows = rng.standard_normal((20, 9))
    forms = Forms([dim])
    for row in rows:
        forms.add({dim: row})
    sums, gone, total = SignedSums(forms.means()), list[int](), 0.0
    for count in (1, 2, 3):
        indices, _ = sums.cheapest(dim, count)
        total += sums.remove(dim, indices)
        gone += indices.tolist()
        np.testing.assert_allclose(total, (rows[:, gone].sum(1) ** 2).mean(), rtol=1e-9)


def test_two_indices_that_do_the_same_do_not_both_go_cheaply() -> None:
    dim = Dim(3)
    forms = Forms([dim])
    forms.add({dim: np.array([1.0, 1.0, 1.5])})
    forms.add({dim: np.array([1.0, 1.0, -1.5])})
    sums = SignedSums(forms.means())
    first, _ = sums.cheapest(dim, 1)
    sums.remove(dim, first)
    second, _ = sums.cheapest(dim, 1)
    assert first.tolist() == [0]
    assert second.tolist() == [2]
