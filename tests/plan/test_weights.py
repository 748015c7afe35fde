from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnxprune.errors import NothingToPruneError, OnnxPruneError, OptionError
from onnxprune.graph import load
from onnxprune.graph.patterns import is_named
from onnxprune.options import PruneOptions
from onnxprune.plan.weights import plan_weights
from tests.models import DIGITS, linear, random, write


def options(granularity: str = "weight", **values: object) -> PruneOptions:
    return PruneOptions.of(granularity=granularity, **values)


def two(path: Path, first: np.ndarray, second: np.ndarray) -> Path:
    """`y = x @ a @ b`."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("MatMul", ["h", "b"], ["y"], name="second"),
    ]
    return write(path, nodes, {"a": first, "b": second}, {"x": ["n", len(first)]})


def test_layer_scope_zeroes_the_fraction_of_every_tensor(tmp_path: Path) -> None:
    a, b = random(4, 10), random(10, 3, seed=1) * 100
    path = two(tmp_path / "m.onnx", a, b)
    plan = plan_weights(load(path), options(sparsity=0.3))
    for name, values in (("a", a), ("b", b)):
        mask = plan.zeroed[name].array()
        assert mask.sum() == int(0.3 * values.size)
        assert np.abs(values)[mask].max() <= np.abs(values)[~mask].min()


def test_global_scope_zeroes_the_least_of_the_model(tmp_path: Path) -> None:
    a, b = random(4, 10), random(10, 3, seed=1) * 3
    path = two(tmp_path / "m.onnx", a, b)
    plan = plan_weights(load(path), options(sparsity=0.5, scope="global"))
    masks = [plan.zeroed[name].array() for name in "ab"]
    values = np.abs(np.concatenate([a.reshape(-1), b.reshape(-1)]))
    marked = np.concatenate([mask.reshape(-1) for mask in masks])
    assert marked.sum() == len(values) // 2
    assert values[marked].max() <= values[~marked].min()
    assert masks[0].mean() > masks[1].mean()


@pytest.mark.parametrize("model", ["resnet", "vit", "lstm"])
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4)])
def test_n_of_m_holds_along_the_contraction_of_trained_models(model: str, n: int, m: int) -> None:
    loaded = load(DIGITS / f"digits_{model}.onnx")
    plan = plan_weights(loaded, options(f"{n}:{m}"))
    checked = 0
    for name, mask in plan.zeroed.items():
        shape, removed = mask.shape, mask.array()
        axis = {"Conv": 1, "Gemm": 1, "MatMul": 0, "LSTM": 2}[_op(model, name)]
        kept = np.moveaxis(~removed, axis, -1)
        whole = kept.shape[-1] - kept.shape[-1] % m
        groups = kept[..., :whole].reshape(-1, m)
        assert (groups.sum(-1) == n).all(), (name, shape)
        checked += 1
    assert checked >= 5


def _op(model: str, name: str) -> str:
    if "head" in name:
        return "Gemm"
    return {"resnet": "Conv", "vit": "MatMul", "lstm": "LSTM"}[model]


def test_a_depthwise_convolution_has_nothing_to_lose_to_n_of_m(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], group=6)]
    path = write(tmp_path / "m.onnx", nodes, {"w": random(6, 1, 3, 3)}, {"x": [1, 6, 8, 8]})
    with pytest.raises(NothingToPruneError, match="zeroes none of the 1 weights"):
        plan_weights(load(path), options("2:4"))


def test_blocks_are_zeroed_whole(tmp_path: Path) -> None:
    weight = random(10, 12)  # [contraction, output]
    plan = plan_weights(
        load(linear(tmp_path / "m.onnx", weight)), options("block:4x5", sparsity=0.5)
    )
    mask = plan.zeroed["w"].array().T  # [output, contraction]
    blocks = mask.reshape(3, 4, 2, 5).transpose(0, 2, 1, 3).reshape(6, 20)
    assert (blocks.all(1) | ~blocks.any(1)).all()
    assert blocks.any(1).sum() == 3
    norms = np.linalg.norm(
        weight.T.reshape(3, 4, 2, 5).transpose(0, 2, 1, 3).reshape(6, 20), axis=1
    )
    assert norms[blocks.any(1)].max() <= norms[~blocks.any(1)].min()


def test_an_absolute_threshold_is_inclusive(tmp_path: Path) -> None:
    weight = np.array([[0.5, -0.25, 0.1], [0.0, 0.26, -3.0]], np.float32)
    plan = plan_weights(load(linear(tmp_path / "m.onnx", weight)), options(threshold=0.25))
    np.testing.assert_array_equal(plan.zeroed["w"].array(), np.abs(weight) <= 0.25)


def test_a_relative_threshold_is_a_share_of_the_sum_of_its_tensor(tmp_path: Path) -> None:
    a, b = random(4, 10), random(10, 3, seed=1) * 100
    path = two(tmp_path / "m.onnx", a, b)
    plan = plan_weights(load(path), options(relative_threshold=0.02))
    for name, values in (("a", a), ("b", b)):
        share = np.abs(values) / np.abs(values).sum()
        np.testing.assert_array_equal(plan.zeroed[name].array(), share <= 0.02)


@pytest.mark.parametrize("pattern", ["a", "first", "fir*", "[a]"])
def test_excluded_names_are_left_alone_and_said_so(tmp_path: Path, pattern: str) -> None:
    path = two(tmp_path / "m.onnx", random(4, 10), random(10, 3))
    plan = plan_weights(load(path), options(sparsity=0.5, exclude=[pattern]))
    assert list(plan.zeroed) == ["b"]
    assert plan.skipped == {"a": "excluded"}


def test_names_with_brackets_can_be_excluded_as_they_are() -> None:
    assert is_named(["layer[0].w"], ["layer[0].w"])
    assert not is_named(["layer0.w"], ["LAYER*"])


def test_nothing_left_to_prune_says_why(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.onnx", random(3, 5))
    with pytest.raises(NothingToPruneError, match="1 of them because: excluded"):
        plan_weights(load(path), options(exclude=["*"]))
    with pytest.raises(NothingToPruneError, match="nothing to prune"):
        plan_weights(load(path), options(sparsity=0.0))
    relu = write(tmp_path / "r.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, {"x": [2]})
    with pytest.raises(NothingToPruneError, match="no constant weights"):
        plan_weights(load(relu), options())


def test_channels_are_no_masks(tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        plan_weights(load(linear(tmp_path / "m.onnx", random(3, 5))), options("channel"))


def test_nan_weights_are_refused_by_name(tmp_path: Path) -> None:
    weight = random(3, 5)
    weight[0, 0] = np.nan
    with pytest.raises(OnnxPruneError, match="'w' has NaN values"):
        plan_weights(load(linear(tmp_path / "m.onnx", weight)), options())


def test_the_same_seed_gives_the_same_plan() -> None:
    def plan(seed: int) -> str:
        chosen = options(criterion="random", seed=seed, sparsity=0.5)
        return plan_weights(load(DIGITS / "digits_lstm.onnx"), chosen).to_json()

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
