from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import OnnxPruneError, ValidationError
from onnxprune.graph import load, replace, save, weights
from onnxprune.options import PruneOptions
from onnxprune.plan.sparse import write_sparse
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.plan.weights import plan_weights
from onnxprune.plan.zero import check_zeroed, zero
from tests.models import DIGITS, linear, random, write


def pruned(source: Path, target: Path, granularity: str, **values: object) -> WeightPlan:
    model = load(source)
    plan = plan_weights(model, PruneOptions.of(granularity=granularity, **values))
    zero(model, plan)
    save(model, target)
    return plan


@pytest.mark.parametrize("name", ["resnet", "vit", "lstm"])
@pytest.mark.parametrize("granularity", ["weight", "2:4", "block:4x1"])
def test_the_written_model_is_the_original_with_zeros(
    tmp_path: Path, name: str, granularity: str
) -> None:
    source, target = DIGITS / f"digits_{name}.onnx", tmp_path / "out.onnx"
    plan = pruned(source, target, granularity)
    check_zeroed(load(source), load(target), plan)
    before = {w.name: w.array() for w in weights(load(source))}
    for weight in weights(load(target)):
        expected = before[weight.name].copy()
        if weight.name in plan.zeroed:
            expected[plan.zeroed[weight.name].array()] = 0
        np.testing.assert_array_equal(weight.array(), expected)


@pytest.mark.parametrize("name", ["resnet", "vit", "lstm"])
def test_small_weights_matter_less_than_any_weights(tmp_path: Path, name: str) -> None:
    data = np.load(DIGITS / "digits.npz")

    def accuracy(criterion: str) -> float:
        target = tmp_path / f"{criterion}.onnx"
        pruned(DIGITS / f"digits_{name}.onnx", target, "weight", criterion=criterion, sparsity=0.25)
        session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
        (logits,) = session.run(None, {"image": data["image"]})
        return float((logits.argmax(1) == data["labels"]).mean())

    assert accuracy("magnitude") > 0.95
    assert accuracy("random") < accuracy("magnitude") - 0.1


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path) -> None:
    for target in ("a.onnx", "b.onnx"):
        pruned(DIGITS / "digits_vit.onnx", tmp_path / target, "weight", sparsity=0.7)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_a_plan_read_back_from_json_does_the_same(tmp_path: Path) -> None:
    source = DIGITS / "digits_lstm.onnx"
    plan = pruned(source, tmp_path / "a.onnx", "weight")
    (tmp_path / "plan.json").write_text(plan.to_json())
    again, model = WeightPlan.load(tmp_path / "plan.json"), load(source)
    assert again == plan
    zero(model, again)
    save(model, tmp_path / "b.onnx")
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_masks_pack_any_shape() -> None:
    mask = random(3, 5, 7) > 0.3
    packed = Mask.of(mask)
    assert packed.count == mask.sum()
    np.testing.assert_array_equal(packed.array(), mask)
    assert Mask.from_dict("w", json.loads(json.dumps(packed.to_dict()))) == packed


@pytest.mark.parametrize(
    "damage", [{"bits": "eA=="}, {"bits": "?"}, {"count": 3}, {"shape": [4]}, {"shape": None}]
)
def test_a_damaged_mask_is_an_error_that_names_the_tensor(damage: dict[str, object]) -> None:
    data = Mask.of(np.ones((2, 9), bool)).to_dict()
    with pytest.raises(OnnxPruneError, match="mask for 'w'"):
        Mask.from_dict("w", {**data, **damage})


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other"}'])
def test_what_is_no_plan_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(OnnxPruneError):
        WeightPlan.load(tmp_path / "plan.json")
    with pytest.raises(OnnxPruneError, match="cannot be read"):
        WeightPlan.load(tmp_path / "missing.json")


def test_a_plan_for_another_model_is_refused(tmp_path: Path) -> None:
    model = load(linear(tmp_path / "m.onnx", random(3, 5)))
    with pytest.raises(OnnxPruneError, match="no weight 'v'"):
        zero(model, WeightPlan("weight", {"v": Mask.of(np.ones((3, 5), bool))}))
    with pytest.raises(OnnxPruneError, match=r"'w' is \[3, 5\] here, \[5, 3\] there"):
        zero(model, WeightPlan("weight", {"w": Mask.of(np.ones((5, 3), bool))}))


def test_the_check_finds_a_single_changed_weight(tmp_path: Path) -> None:
    source, target = linear(tmp_path / "m.onnx", random(3, 5)), tmp_path / "out.onnx"
    plan = pruned(source, target, "weight", sparsity=0.4)
    result = load(target)
    (weight,) = weights(result)
    values = weight.array().copy()
    values[np.unravel_index(np.argmax(np.abs(values)), values.shape)] *= 1.001
    replace(weight, values)
    with pytest.raises(ValidationError, match="'w'"):
        check_zeroed(load(source), result, plan)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_a_quantised_weight_becomes_its_zero_point(tmp_path: Path, axis: int | None) -> None:
    integers = np.random.default_rng(0).integers(0, 255, (6, 4), np.uint8)
    count = 1 if axis is None else integers.shape[axis]
    scale = np.linspace(0.1, 5, count, dtype=np.float32)
    point = (100 + np.arange(count)).astype(np.uint8)
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["f"], axis=axis or 0),
        helper.make_node("MatMul", ["x", "f"], ["y"]),
    ]
    if axis is None:
        scale, point = scale.reshape(()), point.reshape(())
    source = write(
        tmp_path / "m.onnx", nodes, {"w": integers, "s": scale, "z": point}, {"x": [2, 6]}
    )
    plan = pruned(source, tmp_path / "out.onnx", "weight", sparsity=0.5)
    assert list(plan.zeroed) == ["w"]
    shape = [1, 1]
    shape[axis or 0] = count
    points = np.broadcast_to(point.reshape(shape).astype(int), integers.shape)
    real = np.abs((integers - points) * scale.reshape(shape))
    mask = plan.zeroed["w"].array()
    assert mask.sum() == 12
    assert real[mask].max() <= real[~mask].min() * (1 + 1e-6)
    (result,) = [w.array() for w in weights(load(tmp_path / "out.onnx")) if w.name == "w"]
    np.testing.assert_array_equal(result, np.where(mask, points, integers))


def test_a_per_channel_qlinear_convolution_becomes_its_zero_points(tmp_path: Path) -> None:
    integers = np.random.default_rng(0).integers(-120, 120, (3, 4, 1, 1), np.int8)
    weights_ = {
        "xs": np.float32(0.1).reshape(()),
        "xz": np.uint8(0).reshape(()),
        "w": integers,
        "ws": np.array([0.1, 1, 10], np.float32),
        "wz": np.zeros(3, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["q"]),
        helper.make_node("QLinearConv", ["q", "xs", "xz", "w", "ws", "wz", "xs", "xz"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "xs", "xz"], ["y"]),
    ]
    source = write(tmp_path / "m.onnx", nodes, weights_, {"x": [1, 4, 2, 2]})
    plan = pruned(source, tmp_path / "out.onnx", "weight", sparsity=0.5, scope="global")
    rows = plan.zeroed["w"].array().reshape(3, 4).sum(1)
    assert rows[0] == 4  # the scale makes the first channel the least
    assert rows[2] < 4


def test_constants_in_nodes_are_masked_too(tmp_path: Path) -> None:
    weight = random(3, 5)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "w")),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    source = write(tmp_path / "m.onnx", nodes, {}, {"x": [2, 3]})
    plan = pruned(source, tmp_path / "out.onnx", "weight", sparsity=0.4)
    (result,) = weights(load(tmp_path / "out.onnx"))
    assert result.kind == "constant"
    np.testing.assert_array_equal(
        result.array(), np.where(plan.zeroed["w"].array(), np.float32(0), weight)
    )


def test_sparse_initializers_save_bytes_and_run_the_same(tmp_path: Path) -> None:
    source, target = DIGITS / "digits_resnet.onnx", tmp_path / "out.onnx"
    plan = pruned(source, target, "weight", sparsity=0.9)
    image = np.load(DIGITS / "digits.npz")["image"][:32]

    def run() -> np.ndarray:
        session = ort.InferenceSession(target, providers=["CPUExecutionProvider"])
        return session.run(None, {"image": image})[0]

    dense, size = run(), target.stat().st_size
    saved = write_sparse(target, plan.zeroed)
    assert target.stat().st_size == size - saved
    assert saved > 0.5 * size
    np.testing.assert_array_equal(run(), dense)
    onnx.checker.check_model(target)
    check_zeroed(load(source), load(target), plan)


def test_too_few_zeros_leave_the_file_as_it_is(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    plan = pruned(DIGITS / "digits_resnet.onnx", target, "2:4")
    before = target.read_bytes()
    assert write_sparse(target, plan.zeroed) == 0
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx"]
