"""Integers that follow: sizes as constants, and put together when the model runs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_resize_by_sizes_that_are_put_together_when_it_runs() -> None:
    model = build(
        """(float[N,3,H,W] x) => (float[N,2,P,Q] y) {
            a = Conv(x, w1)
            shape = Shape(a)
            two = Slice(shape, c0, c2)
            hw = Slice(shape, c2, c4)
            hw2 = Mul(hw, c2)
            sizes = Concat<axis=0>(two, hw2)
            r = Resize<mode="nearest">(a, , , sizes)
            y = Conv(r, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
        c0=ints(0),
        c2=ints(2),
        c4=ints(4),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 5, 6)}])
    assert cut.shape("w2")[1] == 4


@pytest.mark.parametrize("kind", ["sizes", "scales", "upsample"])
def test_resize(kind: str) -> None:
    text, opset = {
        "sizes": ('Resize<mode="linear">(a, , , sizes)', 17),
        "scales": ('Resize<mode="nearest">(a, , scales)', 17),
        "upsample": ('Upsample<mode="nearest">(a, scales)', 9),
    }[kind]
    sizes = {"sizes": ints(1, 8, 9, 9)} if kind == "sizes" else {}
    model = build(
        f"""(float[1,3,4,4] x) => (float[1,2,H,W] y) {{
            a = Conv(x, w1)
            r = {text}
            y = Conv(r, w2)
        }}""",
        opset=opset,
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
        **(sizes or {"scales": np.array([1, 1, 2, 2], "f4")}),
    )
    assert assert_cut_equals_mask(model).shape("w2")[1] == 4


@pytest.mark.parametrize("bounds", ["", "<start=0, end=1>"])
def test_a_computed_size_of_an_open_axis_merged_with_one_that_is_cut(bounds: str) -> None:
    """Batch and heads as one axis, as BLOOM and DeBERTa have it: whoever divides by the heads goes on doing so."""
    model = build(
        f"""(float[N,6] x) => (float[N,5] y) {{
            a = MatMul(x, w1)
            r = Reshape(a, merged)
            t = Tanh(r)
            s = Shape{bounds}(t)
            rows = Gather(s, first)
            batch = Div(rows, heads)
            sizes = Concat<axis=0>(batch, rest)
            b = Reshape(t, sizes)
            y = MatMul(b, w2)
        }}""",
        w1=(6, 8),
        merged=ints(-1, 2),
        first=ints(0),
        heads=ints(4),
        rest=ints(8),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model, shapes={"x": (3, 6)}, others=[{"x": (2, 6)}])
    assert cut.shape("w1") == (6, 4)


def test_reshape_that_merges_two_computed_sizes() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,L,2] y) {
            a = Conv(x, w1)
            shape = Shape(a)
            n = Gather(shape, c0)
            c = Gather(shape, c1)
            n1 = Unsqueeze(n, axis0)
            nc = Unsqueeze(c, axis0)
            to = Concat<axis=0>(n1, nc, minus)
            r = Reshape(a, to)
            t = Transpose<perm=[0,2,1]>(r)
            y = MatMul(t, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(8, 2),
        c0=np.array(0),
        c1=np.array(1),
        axis0=ints(0),
        minus=ints(-1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 4, 4)}])
    assert cut.shape("w2")[0] == 4


def test_expand_and_tile_follow() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            g = GlobalAveragePool(a)
            shape = Shape(a)
            e = Expand(g, shape)
            c = Concat<axis=1>(a, e)
            y = Conv(c, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 4, 4)}])
    assert cut.shape("w2")[1] == 8


def test_repeated_heads_through_expand() -> None:
    model = build(
        """(float[N,T,6] x) => (float[N,T,5] y) {
            a = MatMul(x, w1)
            r = Reshape(a, heads)
            u = Unsqueeze(r, axis3)
            shape = Shape(u)
            n = Slice(shape, c0, c2)
            sizes = Concat<axis=0>(n, tail)
            e = Expand(u, sizes)
            f = Reshape(e, flat)
            y = MatMul(f, w2)
        }""",
        w1=(6, 8),
        w2=(24, 5),
        heads=ints(0, 0, 2, 4),
        axis3=ints(3),
        c0=ints(0),
        c2=ints(2),
        tail=ints(2, 3, 4),
        flat=ints(0, 0, 24),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 5, 6)}])
    assert cut.shape("w1")[1] < 8
    assert cut.shape("w2")[0] <= 12


def test_a_constant_of_shape_added_to_channels() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            shape = Shape(a)
            z = ConstantOfShape<value = float[1] {0.0}>(shape)
            s = Concat<axis=1>(a, z)
            y = Conv(s, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 4, 4)}])
    assert cut.shape("w1")[0] == 4


def test_a_number_computed_from_a_size_stays() -> None:
    """1/sqrt(d), with d from Shape: cutting must not change it."""
    model = build(
        """(float[N,T,6] x) => (float[N,T,5] y) {
            a = MatMul(x, w1)
            shape = Shape(a)
            d = Gather(shape, last)
            f = Cast<to=1>(d)
            q = Sqrt(f)
            s = Div(a, q)
            y = MatMul(s, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
        last=np.array(-1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 5, 6)}])
    assert cut.shape("w2")[0] == 4


def test_size_of_a_weight_read_by_shape_stays() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            shape = Shape(w1)
            f = Cast<to=1>(shape)
            total = ReduceSum<keepdims=0>(f)
            a = MatMul(x, w1)
            s = Div(a, total)
            y = MatMul(s, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2")[0] == 4


@pytest.mark.parametrize("sizes", [(4, 4), (8, 4, 4), (1, 4, 4), (1, 1, 4, 4)])
def test_expand_to_fewer_axes_than_there_are(sizes: tuple[int, ...]) -> None:
    model = build(
        """(float[N,3,1,1] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            e = Expand(a, sizes)
            y = Conv(e, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
        sizes=ints(*sizes),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 1, 1)}])
    assert cut.shape("w2") == (2, 4, 1, 1)


def test_a_size_computed_from_data_freezes_and_says_so() -> None:
    """Computed in floats, it cannot be rewritten."""
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            h = MatMul(x, w0)
            a = MatMul(h, w1)
            e = Exp(f)
            l = Log(e)
            o = Round(l)
            i = Cast<to=7>(o)
            r = Reshape(a, i)
            y = MatMul(r, w2)
        }""",
        w0=(6, 10),
        w1=(10, 8),
        w2=(8, 5),
        f=np.array([-1, 8], "f4"),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (5, 8)
    reasons = [info.dim.frozen for info in cut.tracing.dims]
    assert "Reshape computes its size from data" in reasons
