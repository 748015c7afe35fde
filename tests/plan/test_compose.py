"""Two cuts in a row are one cut of the first model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.dims import Keep, Tracing, cut, trace
from onnxprune.errors import ValidationError
from onnxprune.graph import weights
from onnxprune.plan.compose import compose, compose_masks
from onnxprune.plan.removal import removed
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.runtime.measure import measure
from tests.loaded import traced

CASES = {
    "a chain": (
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        {"w1": (6, 12), "w2": (12, 5)},
    ),
    "a residual sum and a concatenation": (
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1) b = MatMul(x, w2) s = Add(a, b) c = MatMul(x, w3)
            t = Concat<axis=1>(s, c) r = Relu(t) y = MatMul(r, w4)
        }""",
        {"w1": (6, 8), "w2": (6, 8), "w3": (6, 7), "w4": (15, 5)},
    ),
    "grouped convolutions": (
        """(float[N,3,4,4] x) => (float[N,5,4,4] y) {
            a = Conv(x, w1) b = Conv<group=4>(a, w2) r = Relu(b) y = Conv(r, w3)
        }""",
        {"w1": (16, 3, 1, 1), "w2": (16, 4, 1, 1), "w3": (5, 16, 1, 1)},
    ),
    "weights that a ConstantOfShape makes": (
        """(float[N,6] x) => (float[N,5] y) {
            w1 = ConstantOfShape<value: tensor = float[1] {0.5}>(s1) a = MatMul(x, w1) r = Relu(a)
            w2 = ConstantOfShape<value: tensor = float[1] {0.25}>(s2) y = MatMul(r, w2)
        }""",
        {"s1": np.array([6, 12]), "s2": np.array([12, 5])},
    ),
    "a weight that two nodes read and cut differently": (
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w) r = Relu(a) y1 = MatMul(r, u)
            b = MatMul(x, w) s = Tanh(b) y2 = MatMul(s, v) y = Add(y1, y2)
        }""",
        {"w": (6, 12), "u": (12, 5), "v": (12, 5)},
    ),
}


def every_other(tracing: Tracing, seed: int) -> Keep:
    random = np.random.default_rng(seed)
    keep = {}
    for info in tracing.free():
        mask = np.ones(info.size, bool)
        mask[random.choice(info.size, info.size // 3, replace=False)] = False
        if not mask.all():
            keep[info.dim] = mask
    return keep


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    """What each node reads, by the node's first output and the input."""
    read = {weight.value: weight.array() for weight in weights(model)}
    return {
        f"{node.outputs[0].name}:{k}": read[value]
        for node in model.graph
        for k, value in enumerate(node.inputs)
        if value in read
    }


@pytest.mark.parametrize("case", CASES)
def test_a_cut_of_a_cut_is_a_cut_of_the_first_model(case: str) -> None:
    text, shapes = CASES[case]
    first = traced(text, **shapes)
    keep: Keep = {}
    model = first.model
    for seed in range(3):
        step = trace(model, measure(model))
        then = every_other(step, seed)
        keep = compose(first, keep, step, then)
        model = cut(step, then)
    at_once = arrays(cut(first, keep))
    in_steps = arrays(model)
    assert at_once.keys() == in_steps.keys()
    for name, array in at_once.items():
        assert np.array_equal(array, in_steps[name])
    assert any((~mask).sum() > mask.size // 3 for mask in keep.values())


def test_the_plan_counts_in_the_first_model() -> None:
    text, shapes = CASES["a chain"]
    first = traced(text, **shapes)
    (info,) = first.free()
    before = {info.dim: np.arange(12) >= 3}
    model = cut(first, before)
    second = trace(model, measure(model))
    (later,) = second.free()
    keep = compose(first, before, second, {later.dim: np.arange(9) != 1})
    assert removed(first, keep) == {"w1": {"1": [0, 1, 2, 4]}, "w2": {"0": [0, 1, 2, 4]}}


def test_what_is_no_cut_of_the_first_model_is_refused() -> None:
    text, shapes = CASES["a chain"]
    first, second = traced(text, **shapes), traced(text, **shapes)
    for info in first.free():
        info.dim.frozen = "for this test"
    with pytest.raises(ValidationError, match="cannot be cut of the original"):
        compose(first, {}, second, every_other(second, 0))


def test_zeros_add_up() -> None:
    def plan(*places: int) -> WeightPlan:
        mask = np.zeros(6, bool)
        mask[list(places)] = True
        return WeightPlan("weight", {"w": Mask.of(mask.reshape(2, 3))})

    both = compose_masks(compose_masks(None, plan(0)), plan(0, 4))
    assert both.count == 2
    assert np.flatnonzero(both.zeroed["w"].array()).tolist() == [0, 4]
    other = WeightPlan("weight", {"w": Mask.of(np.ones(3, bool))})
    with pytest.raises(ValidationError, match="changed its shape"):
        compose_masks(both, other)
