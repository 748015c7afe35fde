from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError, NothingToPruneError
from onnxprune.graph import load, weights
from onnxprune.runtime.dataset import Dataset
from onnxprune.train import SGD, Runner, Source, live, objective, reestimate, training_step
from onnxprune.train import trainable as weights_of
from tests.train.steps import digits

EPSILON = 1e-5


def normalised(
    path: Path, opset: int = 17, *, shared: bool = False, constants: bool = False
) -> ir.Model:
    """logits = BatchNormalization(x)."""
    variance = "mean" if shared else "variance"
    arrays = {
        "scale": np.array([1.0, 2.0], np.float32),
        "bias": np.array([0.5, -0.5], np.float32),
        "mean": np.array([0.3, 0.7], np.float32),
        "variance": np.array([2.0, 0.5], np.float32),
    }
    node = helper.make_node("BatchNormalization", ["x", "scale", "bias", "mean", variance], ["y"])
    tensors = [numpy_helper.from_array(a, k) for k, a in arrays.items() if k in node.input]
    nodes = [node]
    if constants:
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
        tensors = []
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        tensors,
    )
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return load(path)


def samples(count: int = 48) -> Dataset:
    random = np.random.default_rng(0)
    x = random.normal([1.0, -2.0], [2.0, 0.5], (count, 2)).astype(np.float32)
    return Dataset({"x": x}, random.integers(0, 2, count))


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("opset", [9, 17])
def test_live_statistics_follow_the_batches(tmp_path: Path, opset: int, constants: bool) -> None:
    model, data = normalised(tmp_path / "bn.onnx", opset, constants=constants), samples()
    goal, source = objective(model, data), Source(data, objective(model, data))
    x = data.inputs["x"]
    found = live(model, feeds={"x": x[:2]})
    assert set(found.running) == {"mean", "variance"}
    step = training_step(
        found.model,
        goal.loss,
        SGD(0.0),
        weights_of(model),
        feeds={"x": x[:2]},
        running=found.running,
    )
    runner = Runner(step, threads=1)
    mean, variance = step.start["mean"], step.start["variance"]
    loss = 0.0
    for k in range(3):
        rows = np.arange(16 * k, 16 * k + 16)
        loss = runner.run(source.feed(rows), 0.0)
        mean = 0.9 * mean + 0.1 * x[rows].mean(0)
        variance = 0.9 * variance + 0.1 * x[rows].var(0)
    after = runner.arrays({"mean": "mean", "variance": "variance"})
    np.testing.assert_allclose(after["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(after["variance"], variance, rtol=1e-5)
    batch = x[32:48].astype(np.float64)
    logits = (batch - batch.mean(0)) / np.sqrt(batch.var(0) + EPSILON) * [1, 2] + [0.5, -0.5]
    own = logits[np.arange(16), data.labels[32:48]]  # type: ignore[index]
    assert loss == pytest.approx(float((np.log(np.exp(logits).sum(1)) - own).mean()), rel=1e-5)


@pytest.mark.parametrize("constants", [False, True])
@pytest.mark.parametrize("opset", [9, 17])
def test_re_estimated_statistics_are_those_of_all_samples(
    tmp_path: Path, opset: int, constants: bool
) -> None:
    model, data = normalised(tmp_path / "bn.onnx", opset, constants=constants), samples(50)
    assert reestimate(model, data, batch=16) == 1  # the last batch is smaller
    found = {weight.name: weight.array() for weight in weights(model)}
    np.testing.assert_allclose(found["mean"], data.inputs["x"].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found["variance"], data.inputs["x"].var(0), rtol=1e-5)
    np.testing.assert_array_equal(found["scale"], [1, 2])


def test_what_has_no_statistics_of_its_own_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no constants of its own"):
        live(normalised(tmp_path / "bn.onnx", shared=True))
    model, data = digits("vit")
    with pytest.raises(NothingToPruneError, match="no BatchNormalization"):
        reestimate(model, data)
    assert not live(model).running
