"""What is known of values without running the model on anything."""

from __future__ import annotations

import numpy as np

from onnxprune.dims import Tracing
from onnxprune.fold import known_constants
from tests.loaded import traced, value


def known(tracing: Tracing, name: str, axis: int = 1) -> np.ndarray:
    """What is known along an axis of a value that is one Dim; NaN where nothing is."""
    of = value(tracing.model, name)
    dim = tracing.axes[of][axis]
    found = known_constants(tracing).get(of, {}).get(dim)  # type: ignore[call-overload]
    return np.full(dim.size, np.nan) if found is None else found  # type: ignore[union-attr]


def zeroed(*shape: int, rows: tuple[int, ...]) -> np.ndarray:
    w = np.random.default_rng(0).standard_normal(shape).astype("f4")
    w[list(rows)] = 0
    return w


def test_a_row_of_zeros_gives_its_bias_and_what_ops_make_of_it() -> None:
    tracing = traced(
        """(float[1,3,4,4] x) => (float[1,2,4,4] y) {
            a = Conv(x, w, b)
            r = Relu(a)
            m = Mul(r, two)
            p = GlobalAveragePool(m)
            g = Sigmoid(p)
            s = Mul(m, g)
            y = Conv(s, v)
        }""",
        w=zeroed(4, 3, 1, 1, rows=(0, 1)),
        b=np.array([3, -5, 1, 1], "f4"),
        two=np.array(2, "f4"),
        v=(2, 4, 1, 1),
    )
    nan = np.nan
    np.testing.assert_array_equal(known(tracing, "a"), [3, -5, nan, nan])
    np.testing.assert_array_equal(known(tracing, "r"), [3, 0, nan, nan])
    np.testing.assert_array_equal(known(tracing, "p"), [6, 0, nan, nan])
    np.testing.assert_allclose(known(tracing, "s")[:2], [6 / (1 + np.exp(-6)), 0], rtol=1e-6)
    assert np.isnan(known(tracing, "y")).all()


def test_a_padded_border_mixes_zeros_into_a_constant_but_not_into_zero() -> None:
    weights = {"w": zeroed(2, 3, 1, 1, rows=(0, 1)), "v": (3, 2, 3, 3), "u": (2, 3, 1, 1)}
    text = """(float[1,3,4,4] x) => (float[1,2,%d,%d] y) {
        a = Conv(x, w, b)
        c = Conv<pads=[%s]>(a, v)
        y = Conv(c, u)
    }"""
    for pads, bias, certain in (("1,1,1,1", 1, False), ("1,1,1,1", 0, True), ("0,0,0,0", 1, True)):
        n = 4 if pads[0] == "1" else 2
        b = np.full(2, bias, "f4")
        tracing = traced(text % (n, n, pads), b=b, **weights)  # type: ignore[arg-type]
        assert np.isfinite(known(tracing, "c")).all() == certain


def test_behind_a_batch_normalisation_without_scale_is_its_bias() -> None:
    tracing = traced(
        """(float[1,3,4,4] x) => (float[1,2,4,4] y) {
            a = Conv(x, w)
            n = BatchNormalization(a, s, b, m, t)
            y = Conv(n, v)
        }""",
        w=(3, 3, 1, 1),
        s=np.array([1, 0, 2], "f4"),
        b=np.array([5, 6, 7], "f4"),
        m=(3,),
        t=np.ones(3, "f4"),
        v=(2, 3, 1, 1),
    )
    np.testing.assert_array_equal(known(tracing, "n"), [np.nan, 6, np.nan])


def test_branches_that_meet_are_constant_where_both_are() -> None:
    tracing = traced(
        """(float[1,3,4,4] x) => (float[1,2,4,4] y) {
            a = Conv(x, w)
            c = Conv(x, v)
            s = Add(a, c)
            y = Conv(s, u)
        }""",
        w=zeroed(3, 3, 1, 1, rows=(0, 1)),
        v=zeroed(3, 3, 1, 1, rows=(1, 2)),
        u=(2, 3, 1, 1),
    )
    np.testing.assert_array_equal(known(tracing, "s"), [np.nan, 0, np.nan])
