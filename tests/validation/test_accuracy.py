from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import session
from onnxprune.validation.accuracy import Accuracy, accuracy
from tests.models import random, write


def identity(folder: Path, shape: list[int | str], dtype: type = np.float32) -> Path:
    """A model that gives back what it gets, so that a test chooses its outputs."""
    return write(folder / "m.onnx", [helper.make_node("Identity", ["x"], ["y"])], {}, {"x": shape})


def score(folder: Path, outputs: np.ndarray, labels: np.ndarray, batch: int = 32) -> Accuracy:
    shape: list[int | str] = ["n", *outputs.shape[1:]]
    made = session(identity(folder, shape))
    return accuracy(made, Dataset({"x": outputs.astype(np.float32)}, labels), batch)


def test_top_1(tmp_path: Path) -> None:
    outputs = random(50, 7)
    labels = outputs.argmax(1)
    labels[:10] = (labels[:10] + 1) % 7
    for batch in (1, 8, 64):
        result = score(tmp_path, outputs, labels, batch)
        assert result == Accuracy("top-1", 0.8, 50, "y")


def test_pooled_outputs_with_axes_of_one(tmp_path: Path) -> None:
    outputs = random(9, 7, 1, 1)
    assert score(tmp_path, outputs, outputs.reshape(9, 7).argmax(1)).value == 1
    assert score(tmp_path, outputs[:1], outputs[:1].reshape(1, 7).argmax(1)).value == 1


def test_segmentation(tmp_path: Path) -> None:
    outputs = random(2, 5, 3, 4)
    labels = outputs.argmax(1)
    labels[0, 0, 0] += 1
    assert score(tmp_path, outputs, labels).value == pytest.approx(23 / 24)


def test_tokens(tmp_path: Path) -> None:
    outputs = random(2, 6, 9)
    assert score(tmp_path, outputs, outputs.argmax(-1)).value == 1


@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_single_scores(tmp_path: Path, shape: tuple[int, ...]) -> None:
    logits = np.array([-2.0, 3.0, 0.2, -0.1]).reshape(shape)
    assert score(tmp_path, logits, np.array([0, 1, 1, 0])).value == 1
    probabilities = np.array([0.1, 0.9, 0.4, 0.6]).reshape(shape)
    assert score(tmp_path, probabilities, np.array([0, 1, 0, 0])).value == 0.75


@pytest.mark.parametrize("shape", [(50, 7), (50, 1, 7), (50, 7, 1)])
def test_labels_with_axes_of_one(tmp_path: Path, shape: tuple[int, ...]) -> None:
    outputs = random(50, 7)
    labels = outputs.argmax(1)[:, None]
    labels[:10] = (labels[:10] + 1) % 7
    assert score(tmp_path, outputs.reshape(shape), labels).value == 0.8


def test_samples_that_are_whole_inputs(tmp_path: Path) -> None:
    made, outputs = session(identity(tmp_path, [6, 9])), random(5, 6, 9)
    data = Dataset({"x": outputs}, outputs.argmax(-1), stacked=True)
    assert accuracy(made, data) == Accuracy("top-1", 1.0, 5, "y")
    assert accuracy(made, replace(data, labels=outputs)) == Accuracy("R2", 1.0, 5, "y")


def test_regression(tmp_path: Path) -> None:
    targets = random(40, 3).astype(np.float64)
    assert score(tmp_path, targets, targets).value == pytest.approx(1)
    means = np.broadcast_to(targets.mean(0), targets.shape)
    assert score(tmp_path, means, targets).value == pytest.approx(0, abs=1e-6)
    noisy = targets + 0.1 * random(40, 3, seed=8)
    expected = 1 - np.sum((noisy - targets) ** 2) / np.sum((targets - targets.mean(0)) ** 2)
    result = score(tmp_path, noisy, targets)
    assert (result.metric, result.value) == ("R2", pytest.approx(expected, rel=1e-4))


def test_scores_are_preferred_to_decisions(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    path = write(tmp_path / "m.onnx", nodes, {}, {"x": ["n", 4]})
    import onnx

    proto = onnx.load(path)
    label = helper.make_tensor_value_info("label", onnx.TensorProto.INT64, None)
    proto.graph.output.insert(0, label)
    onnx.save(proto, path)
    outputs = random(5, 4)
    data = Dataset({"x": outputs}, outputs.argmax(1))
    assert accuracy(session(path), data) == Accuracy("top-1", 1.0, 5, "y")
    del proto.graph.output[1]
    onnx.save(proto, path)
    assert accuracy(session(path), data) == Accuracy("top-1", 1.0, 5, "label")


def test_no_labels(tmp_path: Path) -> None:
    made = session(identity(tmp_path, ["n", 4]))
    with pytest.raises(DataError, match="needs labels"):
        accuracy(made, Dataset({"x": random(2, 4)}))


def test_labels_that_go_with_no_output(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no output goes with labels of shape \(2,\): 'y' \(2, 3"):
        score(tmp_path, random(2, 3, 4, 5), np.array([0, 1]))


def test_plain_data() -> None:
    assert Accuracy("R2", float("-inf"), 3, "y").to_dict()["value"] is None
    assert Accuracy("top-1", 0.5, 3, "y").to_dict()["value"] == 0.5
