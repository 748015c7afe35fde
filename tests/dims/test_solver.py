from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.dims.axis import Axis, Dim, Product, Sum, keep_mask, leaves, resolve, size
from onnxprune.dims.solver import freeze, mark_inexact, split, unify


def same(a: Axis, b: Axis) -> bool:
    """Whether two axes have become one: the same expression over the same Dims."""
    a, b = resolve(a), resolve(b)
    if isinstance(a, Dim) or isinstance(b, Dim):
        return a is b
    mine = a.factors if isinstance(a, Product) else a.parts
    theirs = b.factors if isinstance(b, Product) else b.parts
    return type(a) is type(b) and len(mine) == len(theirs) and all(map(same, mine, theirs))


def reasons(*axes: Axis) -> list[str | None]:
    return [dim.frozen for axis in axes for dim in leaves(axis)]


def test_two_dims_become_one() -> None:
    a, b, c = Dim(4), Dim(4), Dim(4)
    unify(a, b)
    unify(b, c)
    unify(c, a)
    assert resolve(a) is resolve(b) is resolve(c)
    assert reasons(a) == [None]


def test_a_reason_to_freeze_travels_and_the_first_stays() -> None:
    a, b = Dim(4), Dim(4)
    freeze(a, "first")
    mark_inexact(b, "mean")
    unify(a, b)
    freeze(b, "second")
    assert reasons(a, b) == ["first", "first"]
    assert next(leaves(a)).inexact == "mean"


def test_a_dim_is_the_product_from_then_on() -> None:
    fused, heads, width = Dim(12), Dim(3), Dim(4)
    freeze(fused, "why")
    unify(fused, Product((heads, width)))
    assert same(fused, Product((heads, width)))
    assert reasons(heads, width) == ["why", "why"]


def test_axes_of_other_sizes_freeze_both() -> None:
    a, b = Dim(4), Product((Dim(2), Dim(3)))
    unify(a, b)
    assert reasons(a, b) == ["axes of 4 and 6 meet"] * 3


def test_an_axis_against_itself_says_nothing() -> None:
    a, b = Dim(4), Dim(3)
    unify(a, Sum((a, Dim(0))))
    unify(Product((a, Dim(1))), a)
    unify(Product((a, b)), Product((a, b)))
    assert reasons(a, b) == [None, None]


def test_an_axis_against_its_own_rotation_ends_with_nothing_to_cut() -> None:
    a, b = Dim(2), Dim(3)
    unify(Sum((a, b)), Sum((b, a)))
    assert None not in reasons(a, b)


def test_products_align_from_the_right_and_split_where_sizes_divide() -> None:
    a, b, c, d = Dim(6), Dim(4), Dim(3), Dim(8)
    unify(Product((a, b)), Product((c, d)))
    assert same(Product((a, b)), Product((c, d)))
    assert [leaf.size for leaf in leaves(d)] == [2, 4]
    assert same(a, Product((c, next(leaves(d)))))


def test_products_that_do_not_line_up_freeze() -> None:
    a, b, c, d = Dim(3), Dim(4), Dim(2), Dim(6)
    unify(Product((a, b)), Product((c, d)))
    assert all(reason is not None for reason in reasons(a, b, c, d))


def test_sums_split_each_other() -> None:
    a, b, c, d = Dim(2), Dim(5), Dim(4), Dim(3)
    unify(Sum((a, b)), Sum((c, d)))
    assert same(Sum((a, b)), Sum((c, d)))
    assert [leaf.size for leaf in leaves(c)] == [2, 2]
    assert next(leaves(c)) is resolve(a)
    assert set(reasons(a, b, c, d)) == {None}


def test_k_equal_parts_against_a_product_become_one() -> None:
    """Channel shuffle, gate and up halves: a sum of 2 parts is a product `2 x n`."""
    gate, up, k, n = Dim(4), Dim(4), Dim(2), Dim(4)
    unify(Sum((gate, up)), Product((k, n)))
    assert resolve(gate) is resolve(up) is resolve(n)


def test_splitting_a_product_along_its_outer_factor() -> None:
    outer, inner = Dim(6), Dim(4)
    parts = split(Product((outer, inner)), [8, 16])
    assert [size(part) for part in parts] == [8, 16]
    assert [leaf.size for leaf in leaves(outer)] == [2, 4]
    assert set(reasons(outer, inner)) == {None}


def test_splitting_inside_a_merged_axis_splits_the_index_that_the_end_falls_in() -> None:
    outer, inner = Dim(6), Dim(4)
    left, right = split(Product((outer, inner)), [6, 18])
    assert [dim.size for dim in leaves(outer)] == [1, 1, 4]
    low, high = leaves(inner)
    assert (low.size, high.size) == (2, 2)
    assert list(leaves(left)) == [low, high, low]
    keep = {low: np.array([True, False])}
    assert keep_mask(left, keep).tolist() == [True, False, True, True, True, False]
    assert keep_mask(right, keep).tolist() == [True, True] + 4 * [True, False, True, True]


def test_parts_must_make_up_the_whole() -> None:
    with pytest.raises(ValueError, match="do not make up"):
        split(Dim(5), [2, 2])


@st.composite
def axes_of(draw: st.DrawFn, total: int, dims: list[Dim], depth: int = 3) -> Axis:
    """An axis of a given size, made of new Dims and of those there are."""
    fits = [dim for dim in dims if size(dim) == total]
    if fits and draw(st.booleans()):
        return draw(st.sampled_from(fits))
    kind = draw(st.sampled_from(["dim", "product", "sum"])) if depth and total > 1 else "dim"
    if kind == "product":
        outer = draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
        sizes = [outer, total // outer]
    else:
        first = draw(st.integers(1, total - 1)) if kind == "sum" else total
        sizes = [first, total - first]
    if kind == "dim":
        dims.append(Dim(total))
        return dims[-1]
    parts = tuple(draw(axes_of(n, dims, depth - 1)) for n in sizes)
    return Product(parts) if kind == "product" else Sum(parts)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_axes_that_are_one_lose_the_same_indices(data: st.DataObject) -> None:
    total, dims = data.draw(st.sampled_from([6, 8, 12])), list[Dim]()
    pairs = [
        (data.draw(axes_of(total, dims)), data.draw(axes_of(total, dims)))
        for _ in range(data.draw(st.integers(1, 4)))
    ]
    for a, b in pairs:
        unify(a, b)
    free = {leaf for dim in dims for leaf in leaves(dim) if leaf.frozen is None}
    rng = np.random.default_rng(data.draw(st.integers(0, 9)))
    keep = {dim: rng.random(dim.size) < 0.5 for dim in free}
    for a, b in pairs:
        assert np.array_equal(keep_mask(a, keep), keep_mask(b, keep))
