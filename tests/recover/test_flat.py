"""Where a function is flat, a fit is free."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.recover.flat import Flat, flat_behind

INF = float("inf")
CHANNELS = 3


def behind(body: str) -> Flat | None:
    """What is flat behind y = Conv(x), for a body that goes on from y."""
    text = f"""
    <ir_version: 9, opset_import: ["" : 17]>
    g (float[N, 2, 4, 4] x, float[3, 2, 1, 1] w) => (float[N, 3, 4, 4] z)
    <float one = {{1}}, float six = {{6}}, float[3, 1, 1] c = {{1, -2, 4}}, float[4] last = {{1, 2, 3, 4}},
     float[3] v = {{1, 1, 4}}, float[3] zero = {{0, 0, 0}}, float[1, 3, 1, 1] nil = {{1, 0, 1}}>
    {{ y = Conv(x, w) {body} }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    value = next(v for node in model.graph for v in node.outputs if v.name == "y")
    return flat_behind(value, -3, 4, CHANNELS)


@pytest.mark.parametrize(
    ("body", "low", "high"),
    [
        ("z = Relu(y)", [0] * 3, [INF] * 3),
        ("z = Clip(y, one, six)", [1] * 3, [6] * 3),
        ("z = Clip(y, , six)", [-INF] * 3, [6] * 3),
        ("z = HardSwish(y)", [-3] * 3, [INF] * 3),
        ("z = HardSigmoid<alpha = 0.5, beta = 0.5>(y)", [-1] * 3, [1] * 3),
        ("a = Add(c, y) z = Relu(a)", [-1, 2, -4], [INF] * 3),
        ("a = Mul(y, c) z = Clip(a, one, six)", [1, -3, 0.25], [6, -0.5, 1.5]),
        (
            "a = BatchNormalization<epsilon = 0.0>(y, v, c1, zero, v) z = Relu(a)".replace(
                "c1", "v"
            ),
            [-1, -1, -2],
            [INF] * 3,
        ),
    ],
)
def test_the_ends_of_what_is_not_flat(body: str, low: list[float], high: list[float]) -> None:
    found = behind(body)
    assert found is not None
    np.testing.assert_allclose(found.low, low)
    np.testing.assert_allclose(found.high, high)


@pytest.mark.parametrize(
    "body",
    [
        "z = Identity(y)",
        "z = Sigmoid(y)",
        "a = Relu(y) z = Add(a, y)",  # read twice: the other reader tells all apart
        "a = Add(y, last) z = Relu(a)",  # a constant along another axis
        "a = Add(y, y) z = Relu(a)",
        "a = Mul(y, nil) z = Relu(a)",  # nothing of a channel comes through
        "s = ReduceMax<keepdims = 0>(x) z = Clip(y, s, six)",  # an end that is computed
    ],
)
def test_nothing_is_known_to_be_flat(body: str) -> None:
    assert behind(body) is None


def test_the_nearest_target_costs_nothing_where_both_are_flat() -> None:
    flat = Flat(np.float32([0]), np.float32([6]))
    target = np.float32([-1, -1, 3, 7, 7]).reshape(-1, 1)
    given = np.float32([-5, 2, 9, 8, 5]).reshape(-1, 1)
    assert flat.nearest(target, given).ravel().tolist() == [-5, 0, 3, 8, 6]
