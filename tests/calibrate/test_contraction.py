"""A contraction's matrix times what it reads is what the node gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

from onnxprune.calibrate import contractions
from onnxprune.dims import trace
from onnxprune.graph import load
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from tests.models import random, write

CASES: list[tuple[str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ("Conv", (2, 4, 9, 8), (6, 4, 3, 3), {}),
    ("Conv", (2, 4, 9, 8), (6, 4, 3, 2), {"strides": [2, 1], "pads": [1, 0, 2, 1]}),
    ("Conv", (2, 4, 9, 8), (6, 2, 3, 3), {"group": 2, "dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    ("Conv", (2, 4, 9, 8), (4, 1, 3, 3), {"group": 4, "auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    ("Conv", (2, 4, 9), (5, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2]}),
    ("Gemm", (3, 7), (7, 5), {}),
    ("Gemm", (3, 7), (5, 7), {"transB": 1}),
    ("MatMul", (2, 3, 7), (7, 5), {}),
]


@pytest.mark.parametrize(("op", "data", "weight", "attributes"), CASES)
@pytest.mark.parametrize("sampled", [False, True])
def test_matrix_times_inputs_is_the_output(
    op: str,
    data: tuple[int, ...],
    weight: tuple[int, ...],
    attributes: dict[str, Any],
    sampled: bool,
    tmp_path: Path,
) -> None:
    w, x = random(*weight, seed=1), random(*data, seed=2)
    node = helper.make_node(op, ["x", "w"], ["y"], **attributes)
    path = write(tmp_path / "m.onnx", [node], {"w": w}, {"x": data})
    model = load(path)
    tracing = trace(model, measure(model))
    (each,) = contractions(tracing)
    (y,) = run(session(path), {"x": x})
    where = np.array([0, 2]) if sampled and each.positions(x, weight[2:]) > 2 else None
    matrix = each.matrix(w)
    seen = each.inputs(x, where, weight[2:], each.groups)
    expected = each.outputs(y, where, each.groups)
    np.testing.assert_allclose(seen @ matrix.transpose(0, 2, 1), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(each.weight(matrix, w.shape), w)


def test_a_constant_left_operand(tmp_path: Path) -> None:
    w, x = random(5, 7), random(2, 7, 3, seed=3)
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["w", "x"], ["y"])],
        {"w": w},
        {"x": x.shape},
    )
    model = load(path)
    (each,) = contractions(trace(model, measure(model)))
    (y,) = run(session(path), {"x": x})
    rows = each.inputs(x, None, (), 1) @ each.matrix(w).transpose(0, 2, 1)
    np.testing.assert_allclose(rows, each.outputs(y, None, 1), rtol=1e-5, atol=1e-5)


def test_a_weight_behind_reshape_and_transpose_is_read_and_written_through_them(
    tmp_path: Path,
) -> None:
    w = random(5, 2, 3)
    nodes = [
        helper.make_node("Reshape", ["w", "shape"], ["flat"]),
        helper.make_node("Transpose", ["flat"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    weights = {"w": w, "shape": np.array([0, -1])}
    path = write(tmp_path / "m.onnx", nodes, weights, {"x": (1, 6)})
    model = load(path)
    (each,) = contractions(trace(model, measure(model)))
    np.testing.assert_array_equal(each.view.read(), w.reshape(5, 6).T)
    np.testing.assert_array_equal(each.view.unread(each.view.read() * 2), w * 2)
    assert (
        numpy_helper.to_array(numpy_helper.from_array(w)).shape
        == each.view.unread(each.view.read()).shape
    )
