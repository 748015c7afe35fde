from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import load, weights
from onnxprune.runtime.sessions import session
from onnxprune.train import trainable, untie
from tests.loaded import loaded
from tests.models import random, write
from tests.train.steps import digits


def names(nodes: list[object], arrays: dict[str, np.ndarray], path: Path) -> set[str]:
    model = load(write(path / "m.onnx", nodes, arrays, {"x": ["n", 4]}))  # type: ignore[arg-type]
    return {weight.name for weight in trainable(model)}


def test_of_a_network_everything_but_running_statistics_and_numbers_is_trained() -> None:
    model, _ = digits("resnet")
    found = {weight.name for weight in trainable(model)}
    statistics = {w.name for w in weights(model) if "running" in w.name}
    floats = {w.name for w in weights(model) if w.dtype.is_floating_point()}
    assert found == floats - statistics
    model, _ = digits("vit")
    found = {weight.name for weight in trainable(model)}
    floats = {w.name for w in weights(model) if w.dtype.is_floating_point()}
    assert floats - found == {"val_58"}  # 1 / sqrt(head size)
    assert len(found) == 44


def test_numbers_masks_and_the_normalisation_of_inputs_are_no_weights(tmp_path: Path) -> None:
    mask = np.where(np.eye(4) > 0, 0, -1e9).astype(np.float32)[0]
    nodes = [
        helper.make_node("Sub", ["x", "channel_means"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["b"]),
        helper.make_node("Div", ["b", "scale"], ["c"]),
        helper.make_node("Add", ["c", "mask"], ["d"]),
        helper.make_node("Add", ["d", "bias"], ["e"]),
        helper.make_node("PRelu", ["e", "slope"], ["f"]),
        helper.make_node("Clip", ["f", "low"], ["y"]),
    ]
    arrays = {
        "channel_means": random(4),
        "w": random(4, 4),
        "scale": np.array([8.0], np.float32),
        "mask": mask,
        "bias": random(4),
        "slope": np.array([0.25], np.float32),
        "low": np.array(-3.0, np.float32),
    }
    assert names(nodes, arrays, tmp_path) == {"w", "bias", "slope"}


def test_weights_in_constant_nodes_and_behind_a_transpose_are_found(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(random(4, 4), "w")),
        helper.make_node("Transpose", ["w"], ["wt"]),
        helper.make_node("MatMul", ["x", "wt"], ["a"]),
        helper.make_node("Identity", ["limits"], ["l"]),
        helper.make_node("Pow", ["a", "l"], ["y"]),
    ]
    assert names(nodes, {"limits": np.full(4, 2, np.float32)}, tmp_path) == {"w"}


def test_patterns_choose() -> None:
    model, _ = digits("lstm")
    assert [w.name for w in trainable(model, ["head.*"])] == ["head.weight", "head.bias"]
    assert not any("head" in w.name for w in trainable(model, exclude=["head.*"]))
    with pytest.raises(OptionError, match=r"'hed\.\*'"):
        trainable(model, ["hed.*"])
    with pytest.raises(NothingToPruneError):
        trainable(model, exclude=["*"])


def test_vectors_that_the_exporter_merged_are_apart_again() -> None:
    """Biases that happened to be equal, stored once; the others read them through an Identity."""
    model = loaded(
        """(float[N,4] x) => (float[N,3] y) {
            a = Gemm (x, w, b)
            other = Identity (b)
            c = Gemm (a, v, other)
            y = Relu (c)
        }""",
        w=(4, 3),
        v=(3, 3),
        b=(3,),
    )
    apart = untie(model)
    assert {weight.name for weight in trainable(model)} == {"w", "v", "b"}
    assert {weight.name for weight in trainable(apart)} == {"w", "v", "b", "other"}
    feed = {"x": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)}
    (before,) = session(model, threads=1).run(None, feed)
    (after,) = session(apart, threads=1).run(None, feed)
    np.testing.assert_array_equal(before, after)
    assert untie(apart) is apart
