from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.graph import clone, inline, load, replace, save, weights
from onnxprune.graph.inline import NAMES
from tests.graph.files import called_twice, saved, two_layers


def run(path: Path) -> list[float]:
    made = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    result: list[float] = made.run(None, {"x": np.ones(4, np.float32)})[0].tolist()
    return result


def test_a_model_without_functions_is_returned_as_it_is(tmp_path: Path) -> None:
    model = load(saved(two_layers(), tmp_path))
    assert inline(model) is model


def test_calls_become_nodes_with_names_of_their_own(tmp_path: Path) -> None:
    model = load(saved(called_twice(), tmp_path))
    flat = inline(model)
    assert [node.op_type for node in flat.graph] == ["Constant", "Mul"] * 2
    assert len({weight.name for weight in weights(flat)}) == 2
    assert "k" not in flat.meta[NAMES]  # it stands for two tensors now
    assert not flat.functions
    save(flat, tmp_path / "flat.onnx")
    assert run(tmp_path / "flat.onnx") == [9.0] * 4


def test_a_name_that_stays_unique_is_kept(tmp_path: Path) -> None:
    proto = called_twice()
    proto.graph.node[1].CopyFrom(helper.make_node("Neg", ["m"], ["y"]))
    flat = inline(load(saved(proto, tmp_path)))
    assert [weight.name for weight in weights(flat)] == ["k"]
    assert flat.meta[NAMES] == {"k"}


def test_the_original_keeps_its_functions(tmp_path: Path) -> None:
    model = load(saved(called_twice(), tmp_path))
    first, _ = weights(inline(model))
    replace(first, np.float32([5.0]))
    assert len(model.functions) == 1
    assert weights(model)[0].array().tolist() == [3.0]


def test_one_call_can_be_changed_without_the_other(tmp_path: Path) -> None:
    flat = inline(load(saved(called_twice(), tmp_path)))
    replace(weights(flat)[0], np.float32([5.0]))
    save(flat, tmp_path / "flat.onnx")
    assert run(tmp_path / "flat.onnx") == [15.0] * 4


def test_functions_of_another_opset_stay(tmp_path: Path) -> None:
    proto = called_twice()
    proto.functions[0].opset_import[0].version = 13
    flat = inline(load(saved(proto, tmp_path)))
    assert len(flat.functions) == 1
    save(flat, tmp_path / "flat.onnx")


def test_functions_that_call_each_other(tmp_path: Path) -> None:
    proto = called_twice()
    function = proto.functions[0]
    function.node.append(helper.make_node("Scale", ["b"], ["again"], domain="local"))
    function.opset_import.append(helper.make_opsetid("local", 1))
    with pytest.raises(ModelError, match="cannot be inlined"):
        inline(load(saved(proto, tmp_path)))


def test_copies_remember_their_source(tmp_path: Path) -> None:
    model = load(saved(called_twice(), tmp_path))
    assert clone(model).meta["source"] == inline(model).meta["source"] == model.meta["source"]
