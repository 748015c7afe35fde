from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
def test_hidden_units_of_all_gates_and_directions(op: str, direction: str) -> None:
    d, gates = 1 + (direction == "bidirectional"), GATES[op]
    model = build(
        f"""(float[T,N,6] x) => (float[T,N,5] y) {{
            a = MatMul(x, v)
            h = {op}<hidden_size=8, direction="{direction}">(a, w, r, b)
            t = Transpose<perm=[0,2,1,3]>(h)
            f = Reshape(t, flat)
            y = MatMul(f, u)
        }}""",
        v=(6, 10),
        w=(d, 8 * gates, 10),
        r=(d, 8 * gates, 8),
        b=(d, 16 * gates),
        flat=np.array([0, 0, d * 8]),
        u=(d * 8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (5, 3, 6)}])
    assert cut.shape("w") == (d, 4 * gates, 5)
    assert cut.shape("r") == (d, 4 * gates, 4)
    assert cut.shape("b") == (d, 8 * gates)
    assert cut.shape("u") == (d * 4, 5)
    assert cut.attribute(op, "hidden_size") == 4


@pytest.mark.parametrize("op", GATES)
def test_stacked_layers_with_states_and_squeeze(op: str) -> None:
    gates = GATES[op]
    states = "s1, s1" if op == "LSTM" else "s1"
    model = build(
        f"""(float[T,N,6] x) => (float[T,N,5] y, float[1,N,7] z) {{
            h1, last1 = {op}<hidden_size=8>(x, w1, r1, b1, , {states})
            q1 = Squeeze(h1, axis1)
            h2, last2 = {op}<hidden_size=12>(q1, w2, r2, b2)
            q2 = Squeeze(h2, axis1)
            y = MatMul(q2, u)
            z = MatMul(last2, u2)
        }}""",
        w1=(1, 8 * gates, 6),
        r1=(1, 8 * gates, 8),
        b1=(1, 16 * gates),
        w2=(1, 12 * gates, 8),
        r2=(1, 12 * gates, 12),
        b2=(1, 24 * gates),
        s1=(1, 1, 8),
        axis1=np.array([1]),
        u=(12, 5),
        u2=(12, 7),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (5, 1, 6)}])
    assert cut.shape("w2") == (1, 6 * gates, 4)
    assert cut.shape("s1") == (1, 1, 4)
    assert cut.shape("u2") == (6, 7)


def test_an_lstm_with_peepholes() -> None:
    model = build(
        """(float[T,N,6] x) => (float[T,1,N,5] y) {
            h = LSTM<hidden_size=8>(x, w, r, b, , , , p)
            y = MatMul(h, u)
        }""",
        w=(1, 32, 6),
        r=(1, 32, 8),
        b=(1, 64),
        p=(1, 24),
        u=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (5, 3, 6)}])
    assert cut.shape("p") == (1, 12)


def test_linear_before_reset() -> None:
    model = build(
        """(float[T,N,6] x) => (float[T,1,N,5] y) {
            h = GRU<hidden_size=8, linear_before_reset=1>(x, w, r, b)
            y = MatMul(h, u)
        }""",
        w=(1, 24, 6),
        r=(1, 24, 8),
        b=(1, 48),
        u=(8, 5),
    )
    assert assert_cut_equals_mask(model).shape("w") == (1, 12, 6)


def test_initial_states_made_from_the_batch_size() -> None:
    model = build(
        """(float[T,N,6] x) => (float[T,1,N,5] y) {
            shape = Shape(x)
            n = Slice(shape, c1, c2)
            sizes = Concat<axis=0>(c1, n, c8)
            z = ConstantOfShape<value = float[1] {0.0}>(sizes)
            h = LSTM<hidden_size=8>(x, w, r, b, , z, z)
            y = MatMul(h, u)
        }""",
        w=(1, 32, 6),
        r=(1, 32, 8),
        b=(1, 64),
        u=(8, 5),
        c1=np.array([1]),
        c2=np.array([2]),
        c8=np.array([8]),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (5, 3, 6)}])
    assert cut.shape("w") == (1, 16, 6)
