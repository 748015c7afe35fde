from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from adjoint import one_node, run

from onnxprune.autodiff import (
    CrossEntropy,
    Distillation,
    Loss,
    NoGradientError,
    SquaredError,
    Weighted,
    gradient,
)
from onnxprune.errors import OptionError

RANDOM = np.random.default_rng(0)
Z = RANDOM.normal(size=(5, 4))
LABELS = np.array([0, 3, 1, 1, 2])
TEACHER = RANDOM.normal(size=(5, 4))


def softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def cross_entropy(z: np.ndarray, smoothing: float) -> float:
    q = np.eye(4)[LABELS] * (1 - smoothing) + smoothing / 4
    return float(-(q * np.log(softmax(z))).sum(1).mean())


def distillation(z: np.ndarray, temperature: float) -> float:
    p, q = softmax(z / temperature), softmax(TEACHER / temperature)
    return float((q * np.log(q / p)).sum(1).mean() * temperature**2)


def squared_error(z: np.ndarray) -> float:
    return float(((z - TEACHER) ** 2).mean())


def numeric(function: object, z: np.ndarray) -> np.ndarray:
    grad = np.zeros_like(z)
    for index in np.ndindex(*z.shape):
        step = np.zeros_like(z)
        step[index] = 1e-6
        grad[index] = (function(z + step) - function(z - step)) / 2e-6
    return grad


def evaluate(model: ir.Model, loss: Loss, **inputs: np.ndarray) -> tuple[float, np.ndarray]:
    result = gradient(model, loss, ["x0"])
    feeds = {"x0": Z.astype(np.float32), **inputs}
    value, grad = run(result, feeds, ["loss", "x0.grad"])
    return float(value), grad


def identity(op_type: str = "Identity", **attributes: object) -> ir.Model:
    return one_node(op_type, [Z.astype(np.float32)], dynamic=True, **attributes)[0]


def fixed(op_type: str) -> ir.Model:
    return one_node(op_type, [Z.astype(np.float32)], axis=1)[0]


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy(op_type: str, smoothing: float) -> None:
    value, grad = evaluate(fixed(op_type), CrossEntropy("y0", smoothing=smoothing), labels=LABELS)
    assert value == pytest.approx(cross_entropy(Z, smoothing), rel=1e-5)
    np.testing.assert_allclose(grad, numeric(lambda z: cross_entropy(z, smoothing), Z), atol=1e-6)


def test_summed_losses_add_up_over_samples() -> None:
    mean = evaluate(fixed("Softmax"), CrossEntropy("y0"), labels=LABELS)
    total = evaluate(fixed("Softmax"), CrossEntropy("y0", reduction="sum"), labels=LABELS)
    assert total[0] == pytest.approx(5 * mean[0], rel=1e-5)
    np.testing.assert_allclose(total[1], 5 * mean[1], rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_from_logits(temperature: float) -> None:
    model, _ = one_node("Identity", [Z.astype(np.float32)])
    loss = Distillation("y0", temperature=temperature)
    value, grad = evaluate(model, loss, teacher=TEACHER.astype(np.float32))
    assert value == pytest.approx(distillation(Z, temperature), rel=1e-4)
    np.testing.assert_allclose(grad, numeric(lambda z: distillation(z, temperature), Z), atol=1e-6)


def test_distillation_from_probabilities() -> None:
    teacher = softmax(TEACHER).astype(np.float32)
    value, grad = evaluate(fixed("Softmax"), Distillation("y0"), teacher=teacher)
    assert value == pytest.approx(distillation(Z, 1.0), rel=1e-4)
    np.testing.assert_allclose(grad, numeric(lambda z: distillation(z, 1.0), Z), atol=1e-6)


def test_a_model_learns_nothing_from_itself() -> None:
    teacher = softmax(Z).astype(np.float32)
    value, grad = evaluate(fixed("Softmax"), Distillation("y0"), teacher=teacher)
    assert abs(value) < 1e-6
    np.testing.assert_allclose(grad, 0, atol=1e-6)


def test_squared_error_of_any_batch() -> None:
    value, grad = evaluate(identity(), SquaredError("y0"), target=TEACHER.astype(np.float32))
    assert value == pytest.approx(squared_error(Z), rel=1e-5)
    np.testing.assert_allclose(grad, numeric(squared_error, Z), atol=1e-6)


def test_a_weighted_sum() -> None:
    model, _ = one_node("Identity", [Z.astype(np.float32)])
    loss = Weighted(((0.3, CrossEntropy("y0")), (0.7, SquaredError("y0", target="teacher"))))
    value, grad = evaluate(model, loss, labels=LABELS, teacher=TEACHER.astype(np.float32))

    def expected(z: np.ndarray) -> float:
        return 0.3 * cross_entropy(z, 0) + 0.7 * squared_error(z)

    assert value == pytest.approx(expected(Z), rel=1e-5)
    np.testing.assert_allclose(grad, numeric(expected, Z), atol=1e-6)


@pytest.mark.parametrize("axis", [2, -3])
def test_a_class_axis_that_is_not_there(axis: int) -> None:
    for loss in (CrossEntropy("y0", axis=axis), Distillation("y0", axis=axis)):
        with pytest.raises(NoGradientError, match=f"2 axes.*{axis}"):
            gradient(identity(), loss, ["x0"])


@pytest.mark.parametrize("name", ["x0", "y0"])
def test_an_input_of_the_loss_is_none_of_the_models_values(name: str) -> None:
    for loss in (CrossEntropy("y0", name), SquaredError("y0", name), Distillation("y0", name)):
        with pytest.raises(NoGradientError, match=f"a value {name!r} already"):
            gradient(fixed("Softmax"), loss, ["x0"])


def test_terms_that_take_one_input_as_two_types() -> None:
    loss = Weighted(((1.0, CrossEntropy("y0", "t")), (1.0, SquaredError("y0", "t"))))
    with pytest.raises(NoGradientError, match="'t'"):
        gradient(fixed("Softmax"), loss, ["x0"])


@pytest.mark.parametrize(
    "loss", [CrossEntropy("y0", smoothing=1.0), Distillation("y0", temperature=0.0)]
)
def test_numbers_that_make_no_loss(loss: Loss) -> None:
    with pytest.raises(OptionError):
        gradient(identity(), loss, ["x0"])


def test_an_output_that_is_not_there() -> None:
    with pytest.raises(NoGradientError, match="nothing"):
        gradient(identity(), CrossEntropy("nothing"), ["x0"])


def test_cross_entropy_in_double_precision() -> None:
    """onnxruntime has no OneHot of doubles."""
    model = one_node("Softmax", [Z], axis=1)[0]
    value, grad = run(
        gradient(model, CrossEntropy("y0"), ["x0"]),
        {"x0": Z, "labels": LABELS},
        ["loss", "x0.grad"],
    )
    assert float(value) == pytest.approx(cross_entropy(Z, 0.0), rel=1e-9)
    np.testing.assert_allclose(grad, numeric(lambda z: cross_entropy(z, 0.0), Z), atol=1e-8)
