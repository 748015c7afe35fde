from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.graph import load, replace, weights
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import Dataset, make_dataset
from onnxprune.runtime.sessions import session
from onnxprune.train import TrainOptions, fit, trainable
from onnxprune.train.lift import lift
from tests.models import random

KINDS = ("initializer", "constant", "input", "half", "function", "fixed")


def written(path: Path, kind: str) -> Path:
    """y = x w + b, its weights kept as files keep them."""
    half = kind == "half"
    dtype = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    arrays = {"w": random(4, 3) * 0.1, "b": np.zeros(3, np.float32)}
    arrays = {k: a.astype(np.float16) if half else a for k, a in arrays.items()}
    tensors = [numpy_helper.from_array(a, k) for k, a in arrays.items()]
    batch = 4 if kind == "fixed" else "n"
    inputs = [helper.make_tensor_value_info("x", dtype, [batch, 4])]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    functions = []
    if kind == "constant":
        nodes = [helper.make_node("Constant", [], [t.name], value=t) for t in tensors] + nodes
        tensors = []
    if kind == "input":
        inputs += [helper.make_tensor_value_info(k, dtype, a.shape) for k, a in arrays.items()]
    if kind == "function":
        body = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        opsets = [helper.make_opsetid("", 17)]
        functions = [helper.make_function("local", "Linear", ["x", "w", "b"], ["y"], body, opsets)]
        nodes = [helper.make_node("Linear", ["x", "w", "b"], ["y"], domain="local")]
    outputs = [helper.make_tensor_value_info("y", dtype, [batch, 3])]
    graph = helper.make_graph(nodes, "test", inputs, outputs, tensors)
    ids = [helper.make_opsetid("", 7 if kind == "input" else 17), helper.make_opsetid("local", 1)]
    version = 3 if kind == "input" else 8
    model = helper.make_model(graph, opset_imports=ids, ir_version=version, functions=functions)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_trained_wherever_files_keep_them(tmp_path: Path, kind: str) -> None:
    model = load(written(tmp_path / "m.onnx", kind))
    x, truth = random(128, 4, seed=1), random(4, 3, seed=2)
    if kind == "half":
        x, truth = x.astype(np.float16), truth.astype(np.float16)
    data = make_dataset({"x": x}, model, (x @ truth).argmax(1))
    found = fit(model, data, None, TrainOptions(epochs=20, lr=0.1, batch_size=16, threads=1))
    best = found.trained.best
    assert best.loss < 0.4 * found.trained.start.loss
    kept = {(w.name, w.kind, w.dtype) for w in weights(found.model)}
    if kind != "function":
        assert kept == {(w.name, w.kind, w.dtype) for w in weights(model)}
    (y,) = session(found.model, threads=1).run(None, {"x": x[:4]})
    assert y.dtype == x.dtype
    expected = x[:4].astype(np.float32) @ found.trained.weights["w"] + found.trained.weights["b"]
    np.testing.assert_allclose(y, expected, atol=2e-2 if kind == "half" else 1e-5)


def test_half_precision_weights_are_carried_in_float32(tmp_path: Path) -> None:
    model = load(written(tmp_path / "m.onnx", "half"))
    lifted, arrays = lift(model, trainable(model))
    assert {value.name: value.dtype.name for value in lifted.graph.inputs if value.dtype} == {
        "x": "FLOAT16",
        "w": "FLOAT",
        "b": "FLOAT",
    }
    x = random(5, 4).astype(np.float16)
    (before,) = session(model, threads=1).run(None, {"x": x})
    (after,) = session(lifted, threads=1).run(None, {"x": x, **arrays})
    np.testing.assert_array_equal(before, after)


def test_stacked_samples_are_trained_on_one_by_one(tmp_path: Path) -> None:
    model = load(written(tmp_path / "m.onnx", "initializer"))
    x, truth = random(40, 2, 4, seed=1), random(4, 3, seed=2)
    np.savez(tmp_path / "data.npz", x=x)
    data = read_data(tmp_path / "data.npz", model)
    assert data.stacked
    teacher = load(written(tmp_path / "t.onnx", "initializer"))
    for weight in weights(teacher):
        if weight.name == "w":
            replace(weight, truth)
    options = TrainOptions(epochs=4, lr=0.05, threads=1)
    found = fit(model, Dataset(data.inputs, None, None, True), teacher, options)
    assert found.trained.best.loss < 0.2 * found.trained.start.loss
