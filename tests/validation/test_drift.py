from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.runtime.sessions import session
from onnxprune.validation.drift import Drift, drift
from tests.dims.exact import build
from tests.models import linear, random, write

X = random(6, 4, seed=3)


def between(a: np.ndarray, b: np.ndarray, folder: Path, batches: int = 1) -> Drift:
    """Drift between two linear maps."""
    before, after = linear(folder / "a.onnx", a), linear(folder / "b.onnx", b)
    feeds = [{"x": part} for part in np.split(X, batches)]
    (result,) = drift(session(before), session(after), feeds)
    return result


def test_a_model_does_not_drift_from_itself(tmp_path: Path) -> None:
    weight = random(4, 5)
    result = between(weight, weight, tmp_path)
    assert (result.relative_error, result.max_abs, result.agreement) == (0, 0, 1)
    assert result.cosine == pytest.approx(1)


@pytest.mark.parametrize("batches", [1, 3])
def test_against_the_definition(tmp_path: Path, batches: int) -> None:
    a, b = random(4, 5, seed=1), random(4, 5, seed=2)
    result = between(a, b, tmp_path, batches)
    y, z = X @ a, X @ b
    assert result.output == "y"
    assert result.relative_error == pytest.approx(
        np.linalg.norm(z - y) / np.linalg.norm(y), rel=1e-5
    )
    assert result.cosine == pytest.approx(
        np.sum(y * z) / np.linalg.norm(y) / np.linalg.norm(z), rel=1e-5
    )
    assert result.max_abs == pytest.approx(np.abs(z - y).max(), rel=1e-5)
    assert result.agreement == pytest.approx(np.mean(y.argmax(1) == z.argmax(1)))


def test_scaling_keeps_direction_and_decisions(tmp_path: Path) -> None:
    weight = random(4, 5)
    result = between(weight, weight * 2, tmp_path)
    assert result.relative_error == pytest.approx(1)
    assert result.cosine == pytest.approx(1)
    assert result.agreement == 1


def test_from_nothing_to_something(tmp_path: Path) -> None:
    zero, weight = np.zeros((4, 5), np.float32), random(4, 5)
    assert between(zero, zero, tmp_path).relative_error == 0
    assert between(zero, weight, tmp_path).relative_error == math.inf
    assert between(weight, zero, tmp_path).relative_error == pytest.approx(1)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_numbers_that_are_none(tmp_path: Path, bad: float) -> None:
    weight = random(4, 5)
    broken = weight.copy()
    broken[0, 0] = bad
    same = between(broken, broken, tmp_path)
    assert same.relative_error == 0
    worse = between(weight, broken, tmp_path)
    assert worse.relative_error == math.inf
    assert json.loads(json.dumps(worse.to_dict(), allow_nan=False))["relative_error"] is None


def test_integer_outputs_agree_by_value(tmp_path: Path) -> None:
    paths = []
    for name, weight in (("a", np.eye(4)), ("b", np.diag([1, 1, 1, 0.0]))):
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["m"]),
            helper.make_node("Greater", ["m", "z"], ["y"]),
        ]
        weights = {"w": weight.astype(np.float32), "z": np.float32([0.5])}
        path = write(tmp_path / f"{name}.onnx", nodes, weights, {"x": ["n", 4]})
        paths.append(path)
    proto = [path.read_bytes() for path in paths]
    assert proto[0] != proto[1]
    import onnx

    for path in paths:
        model = onnx.load(path)
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL
        onnx.save(model, path)
    (result,) = drift(*map(session, paths), [{"x": np.ones((2, 4), np.float32)}])
    assert result.agreement == 0.75


def test_different_interfaces(tmp_path: Path) -> None:
    a = session(linear(tmp_path / "a.onnx", random(4, 5)))
    node = helper.make_node("MatMul", ["other", "w"], ["y"])
    path = write(tmp_path / "b.onnx", [node], {"w": random(4, 5)}, {"other": ["n", 4]})
    with pytest.raises(ModelError, match=r"take different inputs.*'x'.*against 'other'"):
        drift(a, session(path), [{"x": X}])


def test_different_shapes(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"output 'y' has shape \(6, 5\).*\(6, 4\)"):
        between(random(4, 5), random(4, 4), tmp_path)


def test_a_size_that_the_data_decide_may_differ(tmp_path: Path) -> None:
    text = """(float[N,4] x) => (float[M,4] y) {
        s = MatMul(x, w)
        m = ReduceMax<axes=[1], keepdims=0>(s)
        k = Greater(m, z)
        y = Compress<axis=0>(s, k)
    }"""
    paths = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for path, bar in zip(paths, (0.0, 2.0), strict=True):
        onnx.save(build(text, w=np.eye(4, dtype="f4"), z=np.float32(bar)), path)
    few, many = np.full((3, 4), -1, "f4"), np.arange(12, dtype="f4").reshape(3, 4)
    (result,) = drift(*map(session, paths), [{"x": many + 3}, {"x": few}, {"x": many}])
    assert (result.other_size, result.relative_error, result.agreement) == (0, 0.0, 1.0)
    (result,) = drift(*map(session, paths), [{"x": many + 3}, {"x": many - 2}])
    assert (result.other_size, result.relative_error) == (1, 0.0)
    (result,) = drift(*map(session, paths), [{"x": many - 2}])
    assert result.other_size == 1
    assert np.isnan(result.relative_error)


def test_outputs_of_other_names_are_matched_by_place(tmp_path: Path) -> None:
    weight = random(4, 5)
    node = helper.make_node("MatMul", ["x", "w"], ["z"])
    path = write(tmp_path / "b.onnx", [node], {"w": weight}, {"x": ["n", 4]}, output="z")
    (result,) = drift(session(linear(tmp_path / "a.onnx", weight)), session(path), [{"x": X}])
    assert (result.output, result.relative_error) == ("y", 0)


def test_single_numbers_choose_nothing(tmp_path: Path) -> None:
    weight = random(4, 1)
    result = between(weight, weight * 2, tmp_path)
    assert result.relative_error == pytest.approx(1)
    assert np.isnan(result.agreement)


def test_classes_of_a_single_place_are_told_apart(tmp_path: Path) -> None:
    results = []
    for seed in (1, 2):
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        weights = {"w": random(5, 4, 1, 1, seed=seed)}
        path = write(tmp_path / f"{seed}.onnx", [node], weights, {"x": ["n", 4, 1, 1]})
        results.append(session(path))
    feed = {"x": X[:, :, None, None]}
    (same,), (other,) = drift(results[0], results[0], [feed]), drift(*results, [feed])
    a, b = (each.run(None, feed)[0][:, :, 0, 0].argmax(1) for each in results)
    assert same.agreement == 1
    assert other.agreement == pytest.approx(np.mean(a == b))
