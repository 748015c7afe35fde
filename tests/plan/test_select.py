from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxprune.plan.select import fraction_of, least

_ARRAYS = st.lists(
    hnp.arrays(
        np.float32,
        hnp.array_shapes(max_dims=3, max_side=5),
        elements=st.sampled_from([0.0, 1e-30, 0.25, 0.25000003, 1.0, 1e30, np.inf])
        | st.floats(0, 100, width=32),
    ),
    min_size=1,
    max_size=4,
)


@given(_ARRAYS, st.integers(0, 80))
def test_exactly_the_k_least_of_the_stream_are_marked(arrays: list[np.ndarray], k: int) -> None:
    cut = least(lambda: arrays, k)
    masks = []
    for array in arrays:
        mask, cut = cut.mask(array)
        assert mask.shape == array.shape
        masks.append(mask.reshape(-1))
    flat, marked = np.concatenate([a.reshape(-1) for a in arrays]), np.concatenate(masks)
    order = np.argsort(flat, kind="stable")  # ties in stream order
    expected = np.zeros(len(flat), bool)
    expected[order[:k]] = True
    np.testing.assert_array_equal(marked, expected)


@pytest.mark.parametrize(
    ("sparsity", "count", "expected"),
    [(0.29, 100, 29), (0.7, 10, 7), (0.5, 3, 1), (0.9, 1, 0), (0.0, 10, 0), (0.999, 1000, 999)],
)
def test_a_fraction_is_rounded_down_but_not_by_binary_fractions(
    sparsity: float, count: int, expected: int
) -> None:
    assert fraction_of(sparsity, count) == expected
