from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.options import NM, Block
from onnxprune.plan.contraction import Axes
from onnxprune.plan.masks import Layout, block_saliency, nm_mask, spread_blocks
from onnxprune.scores import get_criterion
from tests.models import random

_LAYOUTS = [
    Layout((6, 4), Axes(0, 1)),
    Layout((6, 4), Axes(1, 0)),
    Layout((5,), Axes(None, 0)),
    Layout((8, 3, 2, 2), Axes(0, 1)),
    Layout((8, 3, 2, 2), Axes(1, 0, groups=4)),
    Layout((2, 3, 4, 5), Axes(3, 2)),
]


@pytest.mark.parametrize("layout", _LAYOUTS, ids=str)
def test_matrices_and_back_is_the_identity(layout: Layout) -> None:
    array = random(*layout.shape)
    matrices = layout.matrices(array)
    assert matrices.shape == layout.matrix_shape
    np.testing.assert_array_equal(layout.tensor(matrices), array)


def test_a_convolution_is_a_stack_over_kernel_positions() -> None:
    weight = random(8, 4, 3, 3)
    matrices = Layout(weight.shape, Axes(0, 1)).matrices(weight)
    np.testing.assert_array_equal(matrices.reshape(3, 3, 8, 4)[1, 2], weight[:, :, 1, 2])


def test_groups_of_a_transposed_convolution_do_not_mix() -> None:
    weight = random(8, 3, 2, 2)  # two groups of four input channels
    matrices = Layout(weight.shape, Axes(1, 0, groups=2)).matrices(weight)
    assert matrices.shape == (8, 3, 4)
    np.testing.assert_array_equal(matrices.reshape(2, 2, 2, 3, 4)[1, 0, 1], weight[4:, :, 0, 1].T)


@given(st.integers(1, 11), st.sampled_from([(1, 2), (2, 4), (1, 4), (3, 8)]), st.integers(0, 9))
def test_of_every_m_neighbours_the_n_largest_stay(
    inputs: int, pattern: tuple[int, int], seed: int
) -> None:
    n, m = pattern
    saliency = np.abs(random(2, 3, inputs, seed=seed))
    mask = nm_mask(saliency, NM(n, m))
    for start in range(0, inputs, m):
        group, removed = saliency[..., start : start + m], mask[..., start : start + m]
        size = group.shape[-1]
        assert ((~removed).sum(-1) == min(n, size)).all()
        smallest_kept = np.where(removed, np.inf, group).min(-1)
        assert (np.where(removed, group, -np.inf).max(-1) <= smallest_kept).all()


def test_equal_saliencies_still_leave_n_of_m() -> None:
    assert nm_mask(np.zeros((1, 5, 8), np.float32), NM(2, 4)).sum() == 5 * 4


@pytest.mark.parametrize(("name", "order"), [("magnitude", 2), ("l1", 1)])
@pytest.mark.parametrize("sizes", [(4, 1), (3, 5), (1, 1), (16, 16)])
def test_blocks_are_scored_by_their_power_mean(
    name: str, order: int, sizes: tuple[int, int]
) -> None:
    saliency, block = np.abs(random(2, 7, 9)), Block(*sizes)
    scores = block_saliency(saliency, block, get_criterion(name))
    assert scores.shape == (2, math.ceil(7 / block.rows), math.ceil(9 / block.columns))
    for stack, row, column in np.ndindex(*scores.shape):
        part = saliency[
            stack,
            row * block.rows : (row + 1) * block.rows,
            column * block.columns : (column + 1) * block.columns,
        ]
        expected = np.mean(part.astype(float) ** order) ** (1 / order)
        assert scores[stack, row, column] == pytest.approx(expected, rel=1e-6)


def test_spread_blocks_covers_each_block_and_the_ragged_edge() -> None:
    mask = np.zeros((1, 2, 3), bool)
    mask[0, 1, 2] = mask[0, 0, 0] = True
    spread = spread_blocks(mask, (1, 5, 7), Block(4, 3))
    expected = np.zeros((1, 5, 7), bool)
    expected[0, :4, :3] = expected[0, 4:, 6:] = True
    np.testing.assert_array_equal(spread, expected)
