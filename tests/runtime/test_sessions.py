from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxprune.errors import ModelError, ProviderError
from onnxprune.graph import Weight, load, replace, weights
from onnxprune.runtime import sessions
from onnxprune.runtime.sessions import run, session
from tests.graph.files import saved, two_layers, with_external_data
from tests.models import random

X = {"x": random(3, 16)}


def product(model: ir.Model) -> np.ndarray:
    first, second = (weight.array() for weight in weights(model))
    return np.asarray(np.maximum(X["x"] @ first, 0) @ second)


def lazily(weight: Weight, array: np.ndarray) -> None:
    shape = ir.Shape(array.shape)
    lazy = ir.LazyTensor(lambda: ir.tensor(array), dtype=ir.DataType.FLOAT, shape=shape)
    replace(weight, lazy)


@pytest.mark.parametrize("optimize", [True, False])
def test_from_a_path(tmp_path: Path, optimize: bool) -> None:
    path = saved(two_layers(), tmp_path)
    (result,) = run(session(path, optimize=optimize, threads=1), X)
    np.testing.assert_allclose(result, product(load(path)), rtol=1e-4)


@pytest.mark.parametrize("external", [False, True])
def test_from_a_model_with_lazy_weights(tmp_path: Path, external: bool) -> None:
    path = with_external_data(tmp_path) if external else saved(two_layers(), tmp_path)
    model = load(path)
    lazily(weights(model)[1], random(64, 8, seed=5))
    (result,) = run(session(model), X)
    np.testing.assert_allclose(result, product(model), rtol=1e-4)


def test_external_weights_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(with_external_data(tmp_path, width=5000))
    sizes: list[int] = []
    serialize = sessions.serialize

    def spy(model: ir.Model) -> bytes:
        content = serialize(model)
        sizes.append(len(content))
        return content

    monkeypatch.setattr(sessions, "serialize", spy)
    (result,) = run(session(model), X)
    assert sizes[0] < 1000
    np.testing.assert_allclose(result, product(model), rtol=1e-3)


def test_what_is_too_large_for_a_message_goes_through_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(saved(two_layers(), tmp_path))
    lazily(weights(model)[0], random(16, 64, seed=6))
    monkeypatch.setattr(sessions, "LARGEST_PROTO", 100)
    monkeypatch.setattr(sessions, "serialize", None)
    (result,) = run(session(model), X)
    np.testing.assert_allclose(result, product(model), rtol=1e-4)


def test_weights_from_two_folders(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    model = load(with_external_data(tmp_path / "one"))
    other = load(with_external_data(tmp_path / "two"))
    replace(weights(model)[1], weights(other)[1].value.const_value)
    (result,) = run(session(model), X)
    np.testing.assert_allclose(result, product(model), rtol=1e-4)


def test_only_wanted_outputs_run(tmp_path: Path) -> None:
    proto = two_layers()
    proto.graph.output.insert(0, proto.graph.value_info.add(name="r"))
    proto.graph.output[0].type.CopyFrom(proto.graph.output[1].type)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    made = session(saved(proto, tmp_path))
    assert len(run(made, X)) == 2
    assert run(made, X, ["r"])[0].shape == (3, 64)


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_not_a_model(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"onnxruntime does not load .*m\.onnx: \w+") as caught:
        session(tmp_path / "m.onnx")
    assert "\n" not in str(caught.value)


def test_unknown_operator(tmp_path: Path) -> None:
    proto = two_layers()
    proto.graph.node[1].op_type = "Frobnicate"
    path = saved(proto, tmp_path)
    for source in (path, load(path)):
        with pytest.raises(ModelError, match="Frobnicate") as caught:
            session(source)
        assert "\n" not in str(caught.value)
        assert "ONNXRuntimeError" not in str(caught.value)


@pytest.mark.parametrize(("opset", "ir_version"), [(999, 9), (17, 99)])
def test_versions_that_onnxruntime_does_not_know(
    tmp_path: Path, opset: int, ir_version: int
) -> None:
    proto = two_layers()
    proto.opset_import[0].version = opset
    proto.ir_version = ir_version
    with pytest.raises(ModelError, match=r"onnxruntime does not load .*: [^:]*version") as caught:
        session(load(saved(proto, tmp_path)))
    assert "::" not in str(caught.value)


@pytest.mark.parametrize(
    "feed", [{}, {"x": random(3, 17)}, {"x": np.zeros((3, 16))}, {**X, "z": random(1)}]
)
def test_a_run_that_fails(tmp_path: Path, feed: dict[str, np.ndarray]) -> None:
    made = session(saved(two_layers(), tmp_path))
    with pytest.raises(ModelError, match="onnxruntime cannot run the model: ") as caught:
        run(made, feed)
    assert "\n" not in str(caught.value)


def test_onnxruntime_is_quiet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = session(saved(two_layers(), tmp_path))
    with pytest.raises(ModelError):
        run(made, {"x": random(3, 17)})
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    path = saved(two_layers(), tmp_path)
    if "CUDAExecutionProvider" in ort.InferenceSession(path).get_providers():
        pytest.skip("CUDA is here")
    with pytest.raises((ProviderError, ModelError), match="CUDAExecutionProvider"):
        session(path, ["cuda"])
