from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build

POOLINGS = [
    "MaxPool<kernel_shape=[2,2], strides=[2,2]>(a)",
    "AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(a)",
    "LpPool<kernel_shape=[2,2]>(a)",
    "GlobalMaxPool(a)",
    "GlobalLpPool(a)",
    "ReduceMean<axes=[2,3]>(a)",
    "ReduceSum(a, axes23)",
    "ReduceMax<axes=[-1]>(a)",
]


@pytest.mark.parametrize("text", POOLINGS)
def test_channels_pass_pooling(text: str) -> None:
    model = build(
        f"""(float[N,3,8,8] x) => (float[N,2,P,Q] y) {{
            a = Conv(x, w1, b1)
            p = {text}
            y = Conv(p, w2)
        }}""",
        w1=(8, 3, 1, 1),
        b1=(8,),
        w2=(2, 8, 1, 1),
        **({"axes23": np.array([2, 3])} if "axes23" in text else {}),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 8, 8)}])
    assert cut.shape("w2") == (2, 4, 1, 1)


def test_sampling_on_a_grid() -> None:
    model = build(
        """(float[N,3,8,8] x, float[N,5,5,2] grid) => (float[N,2,5,5] y) {
            a = Conv(x, w1)
            p = GridSample(a, grid)
            y = Conv(p, w2)
        }""",
        opset=16,
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
    )
    assert assert_cut_equals_mask(model).shape("w2") == (2, 4, 1, 1)


def test_a_sum_over_channels_is_exact() -> None:
    model = build(
        """(float[N,6] x) => (float[N,1] y) {
            a = MatMul(x, w1)
            r = Relu(a)
            y = ReduceSum(r, last)
        }""",
        w1=(6, 8),
        last=np.array([-1]),
    )
    assert assert_cut_equals_mask(model).shape("w1") == (6, 4)


def test_a_mean_over_channels_is_left_alone() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            m = ReduceMean<axes=[1]>(a)
            s = Mul(a, m)
            c = Conv(s, w2)
            y = Conv(c, w3)
        }""",
        w1=(8, 3, 1, 1),
        w2=(6, 8, 1, 1),
        w3=(2, 6, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 8
    assert cut.shape("w2")[0] == 3
    more = assert_cut_equals_mask(model, exact=False, allow_inexact=True)
    assert more.shape("w1")[0] == 4


def test_positions_of_a_maximum_freeze() -> None:
    model = build(
        """(float[N,6] x) => (int64[N,1] y) {
            h = MatMul(x, w1)
            r = Relu(h)
            a = MatMul(r, w2)
            y = ArgMax<axis=-1>(a)
        }""",
        w1=(6, 8),
        w2=(8, 10),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (4, 10)


def test_the_best_of_each_row() -> None:
    model = build(
        """(float[N,4,6] x) => (float[N,2,5] y) {
            a = MatMul(x, w1)
            best, where = TopK<axis=1>(a, two)
            y = MatMul(best, w2)
        }""",
        w1=(6, 8),
        two=np.array([2]),
        w2=(8, 5),
    )
    assert assert_cut_equals_mask(model).shape("w2") == (4, 5)
