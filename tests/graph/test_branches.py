"""Which operands of sums are layers that can be left out, and what is left without them."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.graph.branches import Branch, branches, left_out, silenced
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from tests.loaded import loaded

RESIDUAL = """(float[2,3,4,4] x) => (float[2,3,4,4] y) {
    a = Conv(x, w)
    b = Relu(a)
    f = Conv(b, v)
    s = Add(x, f)
    y = Relu(s)
}"""
WEIGHTS = {"w": (5, 3, 1, 1), "v": (3, 5, 1, 1)}
NESTED = """(float[2,6] x) => (float[2,6] y) {
    a = MatMul(x, w)
    b = MatMul(a, v)
    s = Add(b, a)
    c = MatMul(s, u)
    y = Add(x, c)
}"""


def found(model: ir.Model, excluded: str = "") -> list[Branch]:
    return branches(model, measure(model).shapes, lambda names: excluded in names)


def keys(text: str, excluded: str = "", **weights: tuple[int, ...]) -> list[tuple[str, int]]:
    return [(branch.sum, branch.index) for branch in found(loaded(text, **weights), excluded)]


def outputs(model: ir.Model, x: np.ndarray) -> np.ndarray:
    (y,) = run(session(model), {"x": x})
    return y


def test_the_branch_of_a_residual_block_goes_with_all_that_only_it_needs() -> None:
    model = loaded(RESIDUAL, **WEIGHTS)
    (branch,) = found(model)
    assert asdict(branch) == {"sum": "s", "index": 1, "nodes": 3, "params": 30, "macs": 960}
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("f4")
    without = left_out(model, [branch])
    assert [node.op_type for node in without.graph] == ["Relu"]
    assert not without.graph.initializers
    np.testing.assert_array_equal(outputs(without, x), np.maximum(x, 0))
    np.testing.assert_array_equal(outputs(silenced(model, [branch]), x), np.maximum(x, 0))
    assert len(model.graph) == 5  # untouched


def test_what_it_goes_round_stays() -> None:
    """A second block: what the first gives reaches the sum by both of its operands."""
    text = RESIDUAL.replace("y = Relu(s)", "c = Conv(s, w)\n g = Conv(c, v)\n y = Add(s, g)")
    first, second = found(loaded(text, **WEIGHTS))
    assert (first.sum, first.index, first.nodes, first.params) == ("s", 1, 3, 0)  # of both
    assert (second.sum, second.index, second.nodes, second.macs) == ("y", 1, 2, 960)


def test_a_sum_of_two_is_an_addition() -> None:
    assert keys(RESIDUAL.replace("Add(", "Sum("), **WEIGHTS) == [("s", 1)]
    three = RESIDUAL.replace("Add(x, f)", "Sum(x, x, f)")
    assert keys(three, **WEIGHTS) == []


def test_a_mean_takes_the_place_of_a_branch() -> None:
    model = loaded(RESIDUAL, **WEIGHTS)
    (branch,) = found(model)
    mean = np.array([1, 2, 3], "f4").reshape(1, 3, 1, 1)
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype("f4")
    without = left_out(model, [branch], {branch: mean})
    assert [node.op_type for node in without.graph] == ["Add", "Relu"]
    np.testing.assert_array_equal(outputs(without, x), np.maximum(x + mean, 0))


def test_of_two_branches_the_longer_is_the_layer() -> None:
    text = RESIDUAL.replace("s = Add(x, f)", "p = Conv(x, u)\n s = Add(p, f)")
    assert keys(text, **WEIGHTS, u=(3, 3, 1, 1)) == [("s", 1)]


def test_what_others_need_is_no_branch() -> None:
    text = RESIDUAL.replace("y = Relu(s)", "y = Mul(s, f)")
    assert keys(text, **WEIGHTS) == []


def test_what_is_added_to_a_constant_or_spread_over_a_sum_is_no_branch() -> None:
    text = """(float[2,6] x) => (float[2,6] y) {
        a = MatMul(x, w)
        s = Add(a, p)
        g = MatMul(x, v)
        y = Add(s, g)
    }"""
    assert keys(text, w=(6, 6), p=(2, 6), v=(6, 1)) == []


def test_a_branch_without_weights_is_no_layer() -> None:
    text = """(float[2,6] x) => (float[2,6] y) {
        a = Relu(x)
        y = Add(x, a)
    }"""
    assert keys(text) == []


@pytest.mark.parametrize("name", ["w", "v", "a", "f"])
def test_what_is_excluded_stays(name: str) -> None:
    assert keys(RESIDUAL, name, **WEIGHTS) == []


@pytest.mark.parametrize("name", ["x", "s", "y", "other"])
def test_what_does_not_go_with_it_excludes_nothing(name: str) -> None:
    assert keys(RESIDUAL, name, **WEIGHTS) == [("s", 1)]


def test_two_halves_of_one_value_are_no_branches() -> None:
    text = """(float[2,6] x) => (float[2,3] y) {
        h = MatMul(x, w)
        a, b = Split<axis=1>(h, n)
        y = Add(a, b)
    }"""
    model = loaded(text, w=(6, 6), n=np.array([3, 3]))
    assert branches(model, measure(model).shapes) == []


def test_a_branch_with_a_body_stays() -> None:
    text = """(float[2,6] x, bool c) => (float[2,6] y) {
        a = MatMul(x, w)
        f = If (c) <
            then_branch = t () => (float[2,6] p) { p = MatMul(a, v) },
            else_branch = e () => (float[2,6] q) { q = Relu(a) }
        >
        y = Add(x, f)
    }"""
    assert keys(text, w=(6, 6), v=(6, 6)) == []


def test_an_output_of_the_model_keeps_its_name() -> None:
    model = loaded(NESTED, w=(6, 6), v=(6, 6), u=(6, 6))
    outer = next(branch for branch in found(model) if branch.sum == "y")
    without = left_out(model, [outer])
    assert [value.name for value in without.graph.outputs] == ["y"]
    x = np.ones((2, 6), "f4")
    np.testing.assert_array_equal(outputs(without, x), x)


def test_a_layer_within_a_layer_goes_before_or_with_it() -> None:
    model = loaded(NESTED, w=(6, 6), v=(6, 6), u=(6, 6))
    inner, outer = found(model)
    assert (inner.sum, inner.index, outer.sum, outer.index) == ("s", 0, "y", 1)
    x = np.random.default_rng(1).standard_normal((2, 6)).astype("f4")
    weights = {name: value.const_value for name, value in model.graph.initializers.items()}
    w, u = (weights[name].numpy() for name in "wu")  # type: ignore[union-attr]
    np.testing.assert_allclose(outputs(left_out(model, [inner]), x), x + x @ w @ u, rtol=1e-5)
    left = left_out(model, [inner])
    assert [(one.sum, one.index) for one in found(left)] == [("y", 1)]
    both = left_out(model, [inner, outer])
    np.testing.assert_array_equal(outputs(both, x), x)
    assert not both.graph.initializers
