from __future__ import annotations

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)


def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (RANDOM.normal(size=shape) * scale).astype(np.float32)


def uniform(low: float, high: float, *shape: int) -> np.ndarray:
    return RANDOM.uniform(low, high, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op_type", "low", "high", "opset"),
    [
        ("Abs", -2, 2, 18),
        ("Acos", -0.9, 0.9, 18),
        ("Acosh", 1.2, 3, 18),
        ("Asin", -0.9, 0.9, 18),
        ("Asinh", -2, 2, 18),
        ("Atan", -2, 2, 18),
        ("Atanh", -0.9, 0.9, 18),
        ("Celu", -3, 3, 18),
        ("Cos", -2, 2, 18),
        ("Cosh", -2, 2, 18),
        ("Elu", -3, 3, 18),
        ("Erf", -2, 2, 18),
        ("Exp", -2, 2, 18),
        ("Gelu", -3, 3, 20),
        ("HardSigmoid", -5, 5, 18),
        ("HardSwish", -5, 5, 18),
        ("Identity", -2, 2, 18),
        ("LeakyRelu", -2, 2, 18),
        ("Log", 0.2, 3, 18),
        ("Mish", -3, 3, 18),
        ("Neg", -2, 2, 18),
        ("Reciprocal", 0.5, 2, 18),
        ("Relu", -2, 2, 18),
        ("Selu", -2, 2, 18),
        ("Shrink", -2, 2, 18),
        ("Sigmoid", -3, 3, 18),
        ("Sin", -2, 2, 18),
        ("Sinh", -2, 2, 18),
        ("Softplus", -3, 3, 18),
        ("Softsign", -3, 3, 18),
        ("Sqrt", 0.3, 2, 18),
        ("Swish", -3, 3, 24),
        ("Tan", -1, 1, 18),
        ("Tanh", -2, 2, 18),
        ("ThresholdedRelu", -3, 3, 18),
    ],
)
def test_unary(op_type: str, low: float, high: float, opset: int) -> None:
    check_op(op_type, [uniform(low, high, 3, 4, 5)], opset=opset, exact=op_type != "Gelu")


@pytest.mark.parametrize(
    ("op_type", "attributes", "opset"),
    [
        ("Celu", {"alpha": 0.6}, 18),
        ("Elu", {"alpha": 1.7}, 18),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}, 18),
        ("LeakyRelu", {"alpha": -0.4}, 18),
        ("Selu", {"alpha": 1.5, "gamma": 0.8}, 18),
        ("Shrink", {"lambd": 0.9, "bias": 0.2}, 18),
        ("Swish", {"alpha": 0.7}, 24),
        ("ThresholdedRelu", {"alpha": 0.3}, 18),
    ],
)
def test_unary_with_attributes(op_type: str, attributes: dict[str, object], opset: int) -> None:
    check_op(op_type, [uniform(-3, 3, 4, 5)], opset=opset, **attributes)


SHAPES = [((3, 4), (3, 4)), ((2, 3, 4), (3, 1)), ((1, 4), (2, 3, 4)), ((2, 3), ()), ((1,), (5,))]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize(("a", "b"), SHAPES)
@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean"])
def test_broadcast(op_type: str, a: tuple[int, ...], b: tuple[int, ...], dynamic: bool) -> None:
    # a dynamic axis of size 1 does not run at other sizes beside a larger one: it stays static
    divisor = normal(*b) if op_type != "Div" else uniform(0.5, 2, *b)
    check_op(op_type, [normal(*a), divisor], dynamic=dynamic)


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_pow(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    check_op("Pow", [uniform(0.3, 2, *a), uniform(-2, 2, *b)])


def test_pow_of_a_negative_base_by_a_whole_number() -> None:
    check_op("Pow", [normal(3, 4), np.array(2, np.float32)], wrt=["x0"])
    check_op("Pow", [normal(3, 4), np.array(3, np.int64)])
    check_op("Pow", [np.zeros((2,), np.float32), np.array(0, np.float32)], wrt=["x0"])


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("op_type", ["Max", "Min", "Sum", "Mean"])
def test_variadic(op_type: str, count: int) -> None:
    check_op(op_type, [normal(3, 4) for _ in range(count)])


def test_prelu() -> None:
    check_op("PRelu", [normal(2, 3, 4), normal(3, 1)])


def test_where() -> None:
    check_op("Where", [normal(2, 3) > 0, normal(2, 3), normal(3)])


def test_mod() -> None:
    check_op("Mod", [uniform(3, 6, 3, 4), uniform(0.7, 1.2, 4)], fmod=1)


@pytest.mark.parametrize("bounds", [(None, None), (-0.5, None), (None, 0.5), (-0.5, 0.7)])
def test_clip(bounds: tuple[float | None, float | None]) -> None:
    limits = [None if b is None else np.array(b, np.float32) for b in bounds]
    while limits and limits[-1] is None:
        limits.pop()
    check_op("Clip", [normal(4, 5), *limits])


@pytest.mark.parametrize("training", [None, False])
def test_dropout(training: bool | None) -> None:
    inputs = [normal(4, 5)]
    if training is not None:
        inputs += [np.array(0.3, np.float32), np.array(training)]
    check_op("Dropout", inputs, wrt=["x0"], constants=range(1, len(inputs)))


def test_cast() -> None:
    check_op("Cast", [normal(3, 4)], to=11)
