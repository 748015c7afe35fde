from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dims.axis import Dim, Product
from onnxprune.dims.carriers import changes, new_edge, new_size, renumbered

LAST = int(np.iinfo(np.int64).max)
DIM = Dim(6)
KEEP = {DIM: np.array([True, False, True, True, False, True])}


@pytest.mark.parametrize(("old", "new"), [(6, 4), (12, 8), (0, 0), (-1, -1), (7, 7)], ids=str)
def test_sizes(old: int, new: int) -> None:
    """Multiples of the size (several axes merged by the caller) scale; 0, -1 and others are no sizes of it."""
    assert new_size(DIM, old, KEEP) == new
    assert new_size(None, old, KEEP) == old


@pytest.mark.parametrize(
    ("old", "new"), [(0, 0), (1, 1), (2, 1), (4, 3), (6, 4), (-1, 3), (-6, 0), (-9, 0)], ids=str
)
def test_bounds_count_what_remains_before_them(old: int, new: int) -> None:
    assert new_edge(DIM, old, KEEP) == new


def test_bounds_far_beyond_the_end_stay_beyond() -> None:
    assert new_edge(DIM, LAST, KEEP) >= 4
    assert new_edge(Dim(6), LAST, KEEP) == LAST
    assert new_edge(None, 3, KEEP) == 3


def test_indices_are_renumbered_or_dropped() -> None:
    assert renumbered("index", [DIM], [0, 1, 2, 3, 5, -1, -2], KEEP) == [0, 1, 2, 3, 3]


def test_what_changes() -> None:
    assert changes([None, DIM], KEEP)
    assert changes([Product((Dim(2), DIM))], KEEP)
    assert not changes([Dim(6), None], KEEP)
