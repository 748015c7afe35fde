from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import run

from onnxprune.autodiff import NoGradientError, gradient
from onnxprune.errors import ModelError

BRANCHES = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, 3] x, bool c) => (float[n, 3] y) <float[3] a = {1., 2., 3.}> {
      y = If (c) <
        then_branch = t () => (float[n, 3] p) { p = Mul (x, a) },
        else_branch = e () => (float[n, 3] q) <float[3] b = {2., 4., 6.}> {
          z = Mul (x, x)
          q = If (c) <
            then_branch = tt () => (float[n, 3] r) { r = Add (z, a) },
            else_branch = ee () => (float[n, 3] s) { s = Mul (z, b) }
          >
        }
      >
    }
"""
X = np.arange(6, dtype=np.float32).reshape(2, 3)


def gradients(text: str, *names: str, **feeds: np.ndarray) -> list[np.ndarray]:
    model = gradient(ir.from_proto(onnx.parser.parse_model(text)), "y", names)
    return run(model, feeds, [v.name or "" for v in model.graph.outputs])[1:]


@pytest.mark.parametrize("rows", [2, 5])
def test_an_if_is_differentiated_as_an_if(rows: int) -> None:
    x = np.arange(3 * rows, dtype=np.float32).reshape(rows, 3)
    a, b = np.float32([1, 2, 3]), np.float32([2, 4, 6])
    for condition, expected in (
        (True, [a + 0 * x, x.sum(0), 0 * b]),
        (False, [2 * x * b, 0 * a, (x * x).sum(0)]),
    ):
        found = gradients(BRANCHES, "x", "a", "b", x=x, c=np.array(condition))
        for g, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(g, e, rtol=1e-6)


def test_weights_of_equal_name_in_both_branches_are_two() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[2, 3] x, bool c) => (float[2, 3] y) {
          y = If (c) <
            then_branch = t () => (float[2, 3] p) <float[3] w = {1., 2., 3.}> { p = Mul (x, w) },
            else_branch = e () => (float[2, 3] q) <float[3] w = {5., 5., 5.}> { q = Sub (x, w) }
          >
        }
    """
    first, second = gradients(text, "w", "w_", x=X, c=np.array(False))
    np.testing.assert_allclose(first + second, [-2, -2, -2])
    assert not (first * second).any()


def test_a_branch_that_never_ran_fails_when_it_is_taken() -> None:
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 3] x, bool c) => (float[n, 3] y) <int64[2] shape = {-1, 7}> {
          y = If (c) <
            then_branch = t () => (p) { s = Reshape (x, shape)  p = Mul (s, s) },
            else_branch = e () => (q) { q = Mul (x, x) }
          >
        }
    """
    (dx,) = gradients(text, "x", x=X, c=np.array(False))
    np.testing.assert_allclose(dx, 2 * X)
    model = gradient(ir.from_proto(onnx.parser.parse_model(text)), "y", ["x"])
    from onnxprune.runtime.sessions import run as safely
    from onnxprune.runtime.sessions import session

    with pytest.raises(ModelError, match="no gradient through the then_branch"):
        safely(session(model), {"x": np.zeros((7, 3), np.float32), "c": np.array(True)})


WHILE = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[3] x, int64 limit) => (float[3] y, float[n, 3] seen)
    <int64 zero = {{0}}, int64 one = {{1}}, int64 many = {{100}}, int64 six = {{6}}, bool yes = {{1}}> {{
      last, y, seen = Loop (many, yes, one, x) <body = trip (int64 i, bool c, int64 k, float[3] z) => (
        bool goes, int64 next, float[3] after, float[3] copy) {{
          next = Add (k, {step})
          goes = Less (next, {end})
          after = Mul (z, x)
          copy = Identity (after)
      }}>
    }}
"""


@pytest.mark.parametrize(
    ("step", "trips"), [("one", 5), ("k", 3)], ids=["counted", "from a state that doubles"]
)
def test_a_condition_that_constants_decide_ends_a_loop(step: str, trips: int) -> None:
    """y = x^(trips + 1), the states being 1, 2, 3 ... or 1, 2, 4 ... until 6."""
    text = WHILE.format(step=step, end="six")
    (dx,) = gradients(text, "x", x=X[0], limit=np.array(6))
    np.testing.assert_allclose(dx, (trips + 1) * X[0] ** trips, rtol=1e-5)


def test_a_loop_that_an_input_ends_has_no_gradient() -> None:
    model = ir.from_proto(onnx.parser.parse_model(WHILE.format(step="one", end="limit")))
    with pytest.raises(NoGradientError, match="Loop"):
        gradient(model, "y", ["x"], feeds={"x": X[0], "limit": np.array(6)})


def test_a_loop_that_never_ends_in_time_has_no_gradient() -> None:
    model = ir.from_proto(onnx.parser.parse_model(WHILE.format(step="zero", end="six")))
    model.graph.initializers["many"].const_value = ir.tensor(np.array(513))
    with pytest.raises(NoGradientError, match="Loop"):
        gradient(model, "y", ["x"], feeds={"x": X[0], "limit": np.array(6)})
