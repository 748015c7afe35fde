from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onnxprune.dims.axis import Axis, Dim, Product, Sum, keep_mask, leaves, positions, resolve, size

SMALL = st.integers(1, 4)


@st.composite
def axes(draw: st.DrawFn, depth: int = 3) -> Axis:
    if depth == 0 or draw(st.booleans()):
        return Dim(draw(SMALL))
    children = tuple(draw(st.lists(axes(depth - 1), min_size=1, max_size=3)))
    return Product(children) if draw(st.booleans()) else Sum(children)


def test_size_of_products_and_sums() -> None:
    a, b, c = Dim(2), Dim(3), Dim(5)
    assert size(Product((a, b, c))) == 30
    assert size(Sum((a, Product((b, c)), a))) == 19
    assert size(Product((a, b)), {b: 1}) == 2


def test_resolving_flattens_drops_units_and_follows_bindings() -> None:
    a, b, c = Dim(2), Dim(3), Dim(6)
    c.bound = Product((a, Dim(1), b))
    assert resolve(Product((a,))) is a
    assert resolve(Product((Dim(1), b))) is b
    assert resolve(Sum((Dim(0), b))) is b
    flat = resolve(Product((Product((a, b)), c)))
    assert isinstance(flat, Product)
    assert flat.factors == (a, b, a, b)
    assert list(leaves(c)) == [a, b]
    assert size(resolve(Product(()))) == 1
    assert size(resolve(Sum(()))) == 0


def test_a_long_chain_of_bindings_is_followed() -> None:
    chain = [Dim(3) for _ in range(5000)]
    for dim, other in pairwise(chain):
        dim.bound = other
    assert resolve(chain[0]) is chain[-1]


def test_masks_of_a_product_are_the_outer_and_of_a_sum_the_concatenation() -> None:
    a, b = Dim(2), Dim(3)
    keep = {a: np.array([True, False]), b: np.array([False, True, True])}
    assert keep_mask(Product((a, b)), keep).tolist() == [False, True, True, False, False, False]
    assert keep_mask(Sum((b, a)), keep).tolist() == [False, True, True, True, False]
    assert keep_mask(Dim(2), keep).all()


def test_positions_say_which_index_each_place_belongs_to() -> None:
    a, b = Dim(2), Dim(3)
    assert positions(Product((a, b)), a).tolist() == [[0, 0, 0, 1, 1, 1]]
    assert positions(Product((a, b)), b).tolist() == [[0, 1, 2, 0, 1, 2]]
    assert positions(Sum((a, b)), b).tolist() == [[-1, -1, 0, 1, 2]]
    assert positions(Product((a, a)), a).tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]


@given(axes(), st.data())
def test_a_position_stays_where_all_of_its_indices_stay(axis: Axis, data: st.DataObject) -> None:
    dims = list(dict.fromkeys(leaves(axis)))
    keep = {
        d: np.array(data.draw(st.lists(st.booleans(), min_size=d.size, max_size=d.size)))
        for d in dims
    }
    expected = np.ones(size(axis), bool)
    for dim in dims:
        for row in positions(axis, dim):
            expected &= np.where(row < 0, True, keep[dim][row])
    assert np.array_equal(keep_mask(axis, keep), expected)


@given(axes(), st.data())
def test_sizes_under_counts_agree_with_masks(axis: Axis, data: st.DataObject) -> None:
    dims = list(dict.fromkeys(leaves(axis)))
    counts = {d: data.draw(st.integers(0, d.size)) for d in dims}
    keep = {d: np.arange(d.size) < n for d, n in counts.items()}
    assert size(axis, counts) == keep_mask(axis, keep).sum()


@given(axes())
def test_resolving_changes_no_position(axis: Axis) -> None:
    flat = resolve(axis)
    assert size(flat) == size(axis)
    for dim in set(leaves(axis)):
        assert np.array_equal(positions(flat, dim), positions(axis, dim))
