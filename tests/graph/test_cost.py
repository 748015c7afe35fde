from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxprune.graph import clone, inline, load
from onnxprune.graph.cost import macs, macs_by_node, nbytes, params
from onnxprune.runtime.sessions import run, session
from tests.graph.files import ZOO, branches, filled, info, model, saved, two_layers
from tests.models import random, write

MACS = ZOO.parent / "tools" / "macs.py"


def shapes(model: ir.Model, feed: dict[str, np.ndarray]) -> dict[ir.Value, tuple[int, ...]]:
    """Shape of every value in one run, by making all of them outputs."""
    probe = clone(model)
    seen = {value.name for value in probe.graph.outputs}
    for value in (value for node in probe.graph for value in node.outputs):
        if value.name and value.name not in seen:
            probe.graph.outputs.append(value)
    results = run(session(probe, optimize=False, threads=1), feed)
    known = {v.name: r.shape for v, r in zip(probe.graph.outputs, results, strict=True)}
    known |= {name: array.shape for name, array in feed.items()}
    values = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return {value: known[value.name] for value in values if value.name in known}


def count(path: Path, **inputs: np.ndarray) -> int:
    loaded = inline(load(path))
    return macs(loaded, shapes(loaded, inputs))


def test_parameters_and_bytes(tmp_path: Path) -> None:
    loaded = load(saved(two_layers(), tmp_path))
    assert params(loaded) == 16 * 64 + 64 * 8
    assert nbytes(loaded) == 4 * params(loaded)


def test_filled_weights_count_as_if_stored_and_shapes_not(tmp_path: Path) -> None:
    loaded = load(saved(filled(), tmp_path))
    assert params(loaded) == 24
    assert nbytes(loaded) == 24 * 4 + 2 * 8


def test_weights_of_branches_count(tmp_path: Path) -> None:
    assert params(load(saved(branches(), tmp_path))) == 8


def test_matmul(tmp_path: Path) -> None:
    assert count(saved(two_layers(), tmp_path), x=random(3, 16)) == 3 * (16 * 64 + 64 * 8)


@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_gemm(tmp_path: Path, trans_a: int, trans_b: int) -> None:
    shape = (6, 5) if trans_b else (5, 6)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], transA=trans_a, transB=trans_b)
    x = random(5, 3) if trans_a else random(3, 5)
    path = write(tmp_path / "m.onnx", [node], {"w": random(*shape)}, {"x": x.shape})
    assert count(path, x=x) == 3 * 5 * 6


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_convolution(tmp_path: Path, groups: int) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=groups, strides=[2, 2])
    weights = {"w": random(8, 4 // groups, 3, 3)}
    path = write(tmp_path / "m.onnx", [node], weights, {"x": [1, 4, 9, 11]})
    assert count(path, x=random(1, 4, 9, 11)) == 8 * (4 * 5) * (4 // groups) * 9


def test_transposed_convolution(tmp_path: Path) -> None:
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])
    path = write(tmp_path / "m.onnx", [node], {"w": random(4, 6, 3, 3)}, {"x": [1, 4, 5, 7]})
    assert count(path, x=random(1, 4, 5, 7)) == (4 * 5 * 7) * (6 * 9)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent(tmp_path: Path, op: str, gates: int, directions: int) -> None:
    direction = "bidirectional" if directions == 2 else "forward"
    node = helper.make_node(op, ["x", "w", "r"], ["y"], hidden_size=5, direction=direction)
    weights = {"w": random(directions, gates * 5, 3), "r": random(directions, gates * 5, 5)}
    path = write(tmp_path / "m.onnx", [node], weights, {"x": [7, 2, 3]})
    assert count(path, x=random(7, 2, 3)) == 7 * 2 * directions * gates * 5 * (3 + 5)


@pytest.mark.parametrize(
    ("equation", "shape", "expected"),
    [
        ("bij,jk->bik", (2, 3, 4), 2 * 3 * 4 * 5),
        ("...ij,jk->...ik", (2, 2, 3, 4), 4 * 3 * 4 * 5),
        ("b...i,ik->b...k", (2, 6, 4), 2 * 6 * 4 * 5),
    ],
)
def test_einsum(tmp_path: Path, equation: str, shape: tuple[int, ...], expected: int) -> None:
    node = helper.make_node("Einsum", ["x", "w"], ["y"], equation=equation)
    path = write(tmp_path / "m.onnx", [node], {"w": random(4, 5)}, {"x": shape})
    assert count(path, x=random(*shape)) == expected


def test_contrib_attention(tmp_path: Path) -> None:
    node = helper.make_node(
        "Attention", ["x", "w", "b"], ["y"], domain="com.microsoft", num_heads=2
    )
    weights = {"w": random(8, 24), "b": random(24)}
    path = write(tmp_path / "m.onnx", [node], weights, {"x": [2, 5, 8]})
    assert count(path, x=random(2, 5, 8)) == 2 * 5 * 8 * 24 + 2 * (2 * 5 * 5 * 8)


def test_calls_of_one_op_are_told_apart(tmp_path: Path) -> None:
    loaded = load(saved(two_layers(), tmp_path))
    found = macs_by_node(loaded, shapes(loaded, {"x": random(1, 16)}))
    assert {node.name: cost for node, cost in found.items()} == {"first": 1024, "second": 512}


def test_quantised_convolution_costs_what_the_float_one_does(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "s", "z"], ["y"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.uint8(0), "w": np.ones((6, 4, 3, 3), np.uint8)}
    initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(
        nodes, "g", [info("x", 1, 4, 5, 5)], [info("y", 1, 6, 3, 3)], initializers
    )
    path = saved(model(graph), tmp_path)
    assert count(path, x=random(1, 4, 5, 5)) == (6 * 3 * 3) * (4 * 9)


@pytest.mark.skipif(not MACS.exists(), reason="no second opinion here")
@pytest.mark.parametrize(
    "name",
    [
        "point_history_classifier_lstm",
        "yunet_s_320_320",
        "mnist_pytorch",
        "squeezenet",
        "policy_go2",
    ],
)
def test_a_second_opinion_agrees(name: str) -> None:
    path = ZOO / f"{name}.onnx"
    (entry,) = [e for e in json.loads((ZOO / "zoo.json").read_text()) if e["file"] == path.name]
    shape = entry["input_shapes"]
    told = ["--shapes", json.dumps(shape)] if shape else []
    opinion = subprocess.run(
        [sys.executable, str(MACS), str(path), *told], capture_output=True, text=True, check=True
    )
    loaded = inline(load(path))
    rng = np.random.default_rng(0)
    feed = {
        value.name: rng.standard_normal(
            shape[value.name] if shape else [d if isinstance(d, int) else 1 for d in value.shape]
        ).astype(np.float32)
        for value in loaded.graph.inputs
        if not value.is_initializer()
    }
    assert macs(loaded, shapes(loaded, feed)) == int(opinion.stdout)
