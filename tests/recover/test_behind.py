"""What can be told behind a value, and what it may be therefore."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.recover.behind import Behind, behind
from onnxprune.runtime.sessions import run, session

INF = float("inf")
CHANNELS = 3


def found(body: str) -> Behind | None:
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
    return behind(value, -3, 4, CHANNELS)


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
    what = found(body)
    assert what is not None
    np.testing.assert_allclose(what.low, low)
    np.testing.assert_allclose(what.high, high)


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
    assert found(body) is None


def test_on_a_flat_part_every_value_is_right() -> None:
    what = Behind(np.float32([0]), np.float32([6]))
    target = np.float32([-1, -1, 3, 7, 7]).reshape(1, -1, 1)
    given = np.float32([-5, 2, 9, 8, 5]).reshape(1, -1, 1)
    nearest = np.clip(given, *what.interval(target, target))
    assert nearest.ravel().tolist() == [-5, 0, 3, 8, 6]


POOLS = [
    "kernel_shape = [2, 2], strides = [2, 2]",
    "kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]",
    'kernel_shape = [3, 3], auto_pad = "SAME_UPPER"',
    "kernel_shape = [2, 2], dilations = [2, 2]",
]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("first", ["Relu", "MaxPool"])
def test_whatever_is_right_gives_the_same_behind_a_pool(pool: str, first: str) -> None:
    steps = [("Relu", ""), ("MaxPool", f"<{pool}>")]
    (one, with_), (two, and_) = steps if first == "Relu" else steps[::-1]
    body = f"a = {one}{with_}(y) z = {two}{and_}(a)"
    what = found(body)
    assert what is not None
    assert what.pool is not None
    random = np.random.default_rng(0)
    target = random.standard_normal((2, CHANNELS, 4, 4)).astype(np.float32)
    shape = (1, -1, CHANNELS)
    rows = [end.transpose(0, 2, 3, 1).reshape(shape) for end in what.heard(target)]
    least, most = (
        end.reshape(2, 4, 4, CHANNELS).transpose(0, 3, 1, 2) for end in what.interval(*rows)
    )
    assert (least <= target).all()
    assert (target <= most).all()
    assert (least < most).mean() > 0.5
    far = random.standard_normal(target.shape).astype(np.float32) * 9
    text = f"""
    <ir_version: 9, opset_import: ["" : 17]> g (float[N, 3, 4, 4] y) => (float[N, 3, h, w] z) {{ {body} }}
    """
    made = session(ir.from_onnx_text(text))
    (expected,), (given,) = (run(made, {"y": y}) for y in (target, np.clip(far, least, most)))
    np.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize(
    "body",
    [
        "a = Sigmoid(y) z = MaxPool<kernel_shape = [2, 2]>(a)",
        "z = MaxPool<kernel_shape = [2, 2], ceil_mode = 1>(y)",
        "m = Mul(y, c) z = MaxPool<kernel_shape = [2, 2]>(m)",  # of a channel turned upside down
        "z, i = MaxPool<kernel_shape = [2, 2]>(y)",
    ],
)
def test_of_other_pools_nothing_is_known(body: str) -> None:
    assert found(body) is None
