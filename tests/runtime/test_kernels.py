"""Times of kernels, and of layers alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.graph import load
from onnxprune.runtime import layer_times as module
from onnxprune.runtime.kernels import faster_half, kernels
from onnxprune.runtime.layer import Layer, Operand
from onnxprune.runtime.layer_times import LayerTimes, cache_file, layer_times
from tests.models import linear, random


def product(inputs: int, outputs: int, rows: int = 64) -> Layer:
    operands = (
        Operand("FLOAT", (rows, inputs), False),
        Operand("FLOAT", (inputs, outputs), True),
    )
    return Layer("", "MatMul", 13, (), operands, 1, 8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_kernels_of_a_model(tmp_path: Path) -> None:
    model = load(linear(tmp_path / "m.onnx", random(256, 512)))
    (kernel,) = kernels(model, {"x": random(64, 256)}, seconds=0.01)
    assert kernel.op == "MatMul"
    assert 1e-6 < kernel.seconds < 0.1


def test_the_slower_half_does_not_count() -> None:
    assert faster_half([1, 9, 2, 9]) == 1.5
    assert faster_half([3]) == 3


def test_a_layer_alone_is_the_node_with_other_numbers() -> None:
    operands = (
        Operand("FLOAT", (1, 8, 5, 5), False),
        Operand("FLOAT", (16, 4, 3, 3), True),
        None,
    )
    layer = Layer("", "Conv", 11, (("group", 2), ("pads", (1, 1, 1, 1))), operands, 1, 8)
    model, feed = layer.model()
    (node,) = model.graph
    assert node.attributes.get_int("group") == 2
    assert [v.name for v in model.graph.inputs] == ["x0"]
    assert feed["x0"].shape == (1, 8, 5, 5)
    assert [kernel.op for kernel in kernels(model, feed, seconds=0.01)][-1].endswith("Conv")


def test_wider_layers_take_longer_and_are_measured_once() -> None:
    times = LayerTimes(("cpu",))
    narrow, wide = times(product(512, 64)), times(product(512, 4096))
    assert narrow is not None
    assert wide is not None
    assert narrow < wide / 2
    assert times.measured == 2
    assert times(product(512, 64)) == narrow
    assert times.measured == 2


def test_what_does_not_run_alone_has_no_time() -> None:
    operands = (Operand("FLOAT", (2, 3), False), Operand("FLOAT", (4, 5), True))
    assert LayerTimes(("cpu",))(Layer("", "MatMul", 13, (), operands, 1, 8)) is None


def test_the_table_is_kept_for_the_next_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with layer_times(("cpu",)) as times:
        first = times(product(8, 8))
    with layer_times(("cpu",)) as times:
        assert times(product(8, 8)) == first
        assert times.measured == 0
    monkeypatch.setattr(module.ort, "__version__", "0.0.0")
    with layer_times(("cpu",)) as times:
        assert times.known == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": "b", "c": -1, "d": NaN}'])
def test_a_table_that_cannot_be_read_is_measured_anew(content: str) -> None:
    path = cache_file(("cpu",))
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with layer_times(("cpu",)) as times:
        assert times.known == {}
        times(product(8, 8))
    assert len(json.loads(path.read_text())) == 1


def test_a_folder_that_cannot_be_written_is_no_failure(folder: Path) -> None:
    (folder / "onnxprune").write_text("in the way")
    with layer_times(("cpu",)) as times:
        assert times(product(8, 8))


def test_integer_operands_and_sizes() -> None:
    operand = Operand("INT64", (2,), True, (3, 4))
    array = np.array(operand.value)
    layer = Layer("", "Reshape", 13, (), (Operand("FLOAT", (12,), False), operand), 1, 8)
    model, _ = layer.model()
    held = model.graph.initializers["x1"].const_value
    assert held is not None
    np.testing.assert_array_equal(held.numpy(), array)
