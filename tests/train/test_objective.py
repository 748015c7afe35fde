from __future__ import annotations

from dataclasses import replace as with_
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from onnxprune.errors import DataError, OptionError
from onnxprune.graph import load
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import session
from onnxprune.train import Source, TrainOptions, fit, objective
from onnxprune.train import objective as make
from onnxprune.train.objective import rows_of
from tests.models import random, write
from tests.train.steps import digits


def linear(path: Path, outputs: int, *, end: str = "Identity", seed: int = 0) -> ir.Model:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node(end, ["z"], ["y"])]
    weight = random(4, outputs, seed=seed) * 0.3
    return load(write(path / f"{outputs}{end}{seed}.onnx", nodes, {"w": weight}, {"x": ["n", 4]}))


def test_labels_choose_the_loss(tmp_path: Path) -> None:
    x = random(64, 4)
    classes = Dataset({"x": x}, np.arange(64) % 3)
    assert "cross-entropy" in objective(linear(tmp_path, 3), classes).words
    values = Dataset({"x": x}, random(64))
    assert "squared error" in objective(linear(tmp_path, 1), values).words
    with pytest.raises(DataError, match="tells 0 from 1"):
        objective(linear(tmp_path, 1), classes)
    with pytest.raises(DataError, match=r"labels of shape \(2, 5\)"):
        objective(linear(tmp_path, 3), Dataset({"x": x}, np.zeros((64, 5), np.int64)))


def test_a_regression_is_fitted(tmp_path: Path) -> None:
    x, truth = random(200, 4), random(4, seed=5)
    data = Dataset({"x": x}, (x @ truth).astype(np.float32))
    options = TrainOptions(epochs=30, lr=0.05, threads=1)
    found = fit(linear(tmp_path, 1), data, None, options).trained
    assert found.best.metric == "R2"
    assert found.best.accuracy is not None
    assert found.best.accuracy > 0.999
    np.testing.assert_allclose(found.weights["w"][:, 0], truth, atol=0.02)


@pytest.mark.parametrize("end", ["Identity", "Sigmoid"])
def test_yes_and_no_are_told_apart(tmp_path: Path, end: str) -> None:
    x = random(200, 4)
    data = Dataset({"x": x}, (x @ random(4, seed=5) > 0).astype(np.int64))
    model = linear(tmp_path, 1, end=end)
    goal = objective(model, data)
    assert goal.words == "cross-entropy of yes and no"
    options = TrainOptions(epochs=30, lr=0.1, threads=1, held_aside=0.0)
    found = fit(model, data, None, options).trained
    z = x.astype(np.float64) @ found.weights["w"][:, 0]
    y = data.labels
    assert y is not None
    loss = (np.log1p(np.exp(z)) - z * y).mean()
    assert loss == pytest.approx(found.best.loss, rel=1e-4)
    assert ((z > 0) == y).mean() > 0.97


@pytest.mark.parametrize("end", ["Identity", "Softmax"])
def test_without_labels_the_teacher_is_followed(tmp_path: Path, end: str) -> None:
    teacher = linear(tmp_path, 5, end=end)
    student = linear(tmp_path, 5, end=end, seed=7)
    data = Dataset({"x": random(256, 4, seed=3) * 2}, None)
    found = fit(student, data, teacher, TrainOptions(epochs=30, lr=0.03, threads=1))
    assert "original" in found.objective
    assert found.trained.best.loss < 0.01 * found.trained.start.loss


def test_outputs_that_are_no_scores_are_followed_in_value(tmp_path: Path) -> None:
    goal = make(
        linear(tmp_path, 1), Dataset({"x": random(8, 4)}, None), linear(tmp_path, 1, seed=2)
    )
    assert type(goal.loss).__name__ == "SquaredError"


def test_labels_and_teacher_share_the_loss(tmp_path: Path) -> None:
    model, teacher = linear(tmp_path, 3), linear(tmp_path, 3, seed=1)
    data = Dataset({"x": random(30, 4)}, np.arange(30) % 3)
    both = objective(model, data, teacher, alpha=0.25)
    assert both.labels == ()
    assert list(both.teacher) == ["y"]
    assert not objective(model, data, teacher, alpha=0.0).teacher
    assert objective(model, data, teacher, alpha=1.0).labels is None
    with pytest.raises(OptionError):
        objective(model, data, teacher, temperature=0.0)


def test_what_the_teacher_says_goes_with_the_samples() -> None:
    model, data = digits("lstm")
    goal = objective(model, with_(data, labels=None), model)
    said = session(model, threads=1)
    source = Source(data.take(40), goal, said, batch=16)
    places = np.array([33, 2, 17])
    feed = source.feed(places)
    (name,) = goal.teacher.values()
    (expected,) = said.run(None, {"image": data.inputs["image"][places]})
    np.testing.assert_allclose(feed[name], expected, atol=1e-5)


def test_batches_hold_every_sample_once_and_a_short_one_is_left_out() -> None:
    data = Dataset({"x": random(10, 4)}, None)
    order = np.random.default_rng(0).permutation(10)
    parts = rows_of(data, 4, order, whole=False)
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), order)
    assert [len(part) for part in rows_of(data, 4, order, whole=True)] == [4, 4]
    assert [len(part) for part in rows_of(data, 40, order, whole=True)] == [10]
    assert [len(part) for part in rows_of(with_(data, fixed_batch=5), 4, order, whole=True)] == [
        5,
        5,
    ]


SPATIAL = """
<ir_version: 6, opset_import: ["" : {opset}]>
g (float[N,3,4,4] x) => (float[N,5,1,1] y) {{
    c = Conv (x, w)
    p = GlobalAveragePool (c)
    y = {end} (p)
}}
"""


@pytest.mark.parametrize("opset", [7, 12])
@pytest.mark.parametrize("end", ["Softmax", "Identity"])
def test_classes_of_a_single_place_are_scores(opset: int, end: str) -> None:
    random_ = np.random.default_rng(0)
    models = []
    for _ in range(2):
        model = ir.from_proto(onnx.parser.parse_model(SPATIAL.format(opset=opset, end=end)))
        value = model.graph.node(0).inputs[1]
        assert value is not None
        array = random_.normal(size=(5, 3, 1, 1)).astype(np.float32)
        value.const_value = ir.tensor(array, name="w")
        value.shape, value.type = ir.Shape(array.shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(value)
        models.append(model)
    images = random_.normal(size=(64, 3, 4, 4)).astype(np.float32) * 3
    common = TrainOptions(epochs=20, lr=0.05, threads=1, block_epochs=0, augment=())
    found = fit(models[0], Dataset({"x": images}, None), models[1], common).trained
    assert 0 < found.best.loss < 0.1 * found.start.loss
    labels = np.arange(64) % 5
    goal = objective(models[0], Dataset({"x": images}, labels), None)
    assert (type(goal.loss).__name__, goal.labels) == ("CrossEntropy", (1, 1))
    labelled = fit(models[0], Dataset({"x": images}, labels), None, common).trained
    assert labelled.best.loss < labelled.start.loss
