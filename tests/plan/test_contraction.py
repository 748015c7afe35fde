from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.graph import load
from onnxprune.plan.contraction import Axes, Operand, Skipped, operands
from tests.models import DIGITS, linear, random, write


def found(path: Path) -> tuple[dict[str, Operand], dict[str, str]]:
    used, skipped = operands(load(path))
    assert all(isinstance(item, Skipped) for item in skipped)
    names = {operand.weight.name: operand for operand in used}
    return names, {item.weight.name: item.reason for item in skipped}


def single(path: Path, node: onnx.NodeProto, weight: np.ndarray, x: list[int | str]) -> Axes:
    used, skipped = found(write(path, [node], {"w": weight}, {"x": x}))
    assert not skipped
    assert list(used) == ["w"]
    return used["w"].axes


@pytest.mark.parametrize(
    ("node", "shape", "x", "expected"),
    [
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (3, 5), [2, 3], Axes(1, 0)),
        (helper.make_node("MatMul", ["w", "x"], ["y"]), (3, 5), [5, 2], Axes(0, 1)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (4, 3, 5), [4, 2, 3], Axes(2, 1)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (3,), [2, 3], Axes(None, 0)),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (3, 5), [2, 3], Axes(1, 0)),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (5, 3), [2, 3], Axes(0, 1)),
        (helper.make_node("Gemm", ["w", "x"], ["y"], transA=1), (3, 5), [3, 2], Axes(1, 0)),
        (helper.make_node("Conv", ["x", "w"], ["y"]), (6, 4, 3, 3), [1, 4, 5, 5], Axes(0, 1)),
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2),
            (6, 4, 3, 3),
            [1, 6, 5, 5],
            Axes(1, 0, groups=2),
        ),
        (
            helper.make_node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft", transB=1),
            (5, 3),
            [2, 3],
            Axes(0, 1),
        ),
        (
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="bd,ed->be"),
            (5, 3),
            [2, 3],
            Axes(0, 1),
        ),
        (
            helper.make_node("Einsum", ["x", "w"], ["y"], equation="bhd,hde->be"),
            (2, 3, 4),
            [1, 2, 3],
            Axes(None, None),
        ),
    ],
)
def test_axes_of_an_operand(
    tmp_path: Path,
    node: onnx.NodeProto,
    shape: tuple[int, ...],
    x: list[int | str],
    expected: Axes,
) -> None:
    assert single(tmp_path / "m.onnx", node, random(*shape), x) == expected


def test_both_weights_of_a_recurrent_layer_and_not_its_bias() -> None:
    used, skipped = found(DIGITS / "digits_lstm.onnx")
    assert not skipped
    layers = [operand for operand in used.values() if operand.op == "LSTM"]
    assert len(layers) == 4
    assert {operand.axes for operand in layers} == {Axes(1, 2)}
    assert not any("bias" in name for name in used)


def test_batch_normalisation_is_no_contraction() -> None:
    used, _ = found(DIGITS / "digits_resnet.onnx")
    assert {operand.op for operand in used.values()} == {"Conv", "Gemm"}
    assert len(used) == 12


def test_a_transpose_in_between_is_followed(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[2, 0, 1]),
        helper.make_node("Identity", ["t"], ["i"]),
        helper.make_node("MatMul", ["x", "i"], ["y"]),
    ]
    used, _ = found(write(tmp_path / "m.onnx", nodes, {"w": random(3, 5, 2)}, {"x": [2, 1, 3]}))
    assert used["w"].axes == Axes(1, 0)


def test_a_reshape_in_between_loses_the_axes(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["w", "s"], ["r"]),
        helper.make_node("MatMul", ["x", "r"], ["y"]),
    ]
    weights = {"w": random(3, 5, 2), "s": np.array([3, 10])}
    used, _ = found(write(tmp_path / "m.onnx", nodes, weights, {"x": [2, 3]}))
    assert list(used) == ["w"]
    assert used["w"].axes == Axes(None, None)


def test_gates_put_in_order_stay_recurrent_weights(tmp_path: Path) -> None:
    """As exporters write an LSTM whose weights they do not fold: sliced, joined in ONNX's order, unsqueezed."""
    nodes = []
    for name in "wr":
        for gate, start in enumerate((0, 6, 2, 4)):
            bounds = [f"{start}", f"{start + 2}", "0"]
            nodes.append(helper.make_node("Slice", [name, *bounds], [f"{name}{gate}"]))
        gates = [f"{name}{gate}" for gate in range(4)]
        nodes.append(helper.make_node("Concat", gates, [f"{name}c"], axis=0))
        nodes.append(helper.make_node("Unsqueeze", [f"{name}c", "0"], [f"{name}u"]))
    nodes.append(helper.make_node("LSTM", ["x", "wu", "ru"], ["y"], hidden_size=2))
    weights = {"w": random(8, 3), "r": random(8, 2)}
    numbers = {str(i): np.array([i]) for i in (0, 2, 4, 6, 8)}
    used, skipped = found(write(tmp_path / "m.onnx", nodes, weights | numbers, {"x": [5, 1, 3]}))
    assert not skipped
    assert {name: operand.axes for name, operand in used.items()} == dict.fromkeys(
        "wr", Axes(None, 1)
    )


def test_a_token_joined_to_activations_is_no_weight(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["token", "x"], ["t"], axis=0),
        helper.make_node("MatMul", ["t", "w"], ["y"]),
    ]
    weights = {"token": random(1, 3), "w": random(3, 4)}
    used, _ = found(write(tmp_path / "m.onnx", nodes, weights, {"x": [2, 3]}))
    assert list(used) == ["w"]


def test_a_table_counts_by_its_product_not_by_its_lookup(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["ids"], ["i"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["tied", "i"], ["a"]),
        helper.make_node("Gather", ["positions", "i"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Transpose", ["tied"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["c", "t"], ["y"]),
    ]
    weights = {"tied": random(7, 4), "positions": random(7, 4)}
    used, skipped = found(write(tmp_path / "m.onnx", nodes, weights, {"ids": [3]}))
    assert not skipped
    assert {name: operand.axes for name, operand in used.items()} == {"tied": Axes(0, 1)}


def test_uses_that_disagree_leave_the_axes_open(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Gemm", ["h", "w"], ["y"], transB=1),
    ]
    used, _ = found(write(tmp_path / "m.onnx", nodes, {"w": random(4, 4)}, {"x": [2, 4]}))
    assert used["w"].axes == Axes(None, None)
    assert used["w"].op == "MatMul, Gemm"


def test_weights_of_a_branch_and_of_a_function_are_found(tmp_path: Path) -> None:
    def branch(name: str, seed: int) -> onnx.GraphProto:
        weight = onnx.numpy_helper.from_array(random(3, 5, seed=seed), name)
        out = helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, None)
        product = helper.make_node("MatMul", ["z", name], [f"{name}_out"])
        return helper.make_graph([product], name, [], [out], [weight])

    function = helper.make_function(
        "local",
        "Layer",
        ["a", "b"],
        ["c"],
        [helper.make_node("MatMul", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Layer", ["x", "outer"], ["z"], domain="local"),
        helper.make_node(
            "If", ["yes"], ["y"], then_branch=branch("w1", 1), else_branch=branch("w2", 2)
        ),
    ]
    weights = {"outer": random(3, 3), "yes": np.array(True)}
    path = write(
        tmp_path / "m.onnx", nodes, weights, {"x": [2, 3]}, functions=[function], domains=["local"]
    )
    used, _ = found(path)
    assert {name: operand.axes for name, operand in used.items()} == dict.fromkeys(
        ["outer", "w1", "w2"], Axes(1, 0)
    )


def test_what_cannot_be_masked_is_skipped_with_a_reason(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "MatMulNBits",
            ["x", "packed", "scales"],
            ["h"],
            domain="com.microsoft",
            K=32,
            N=3,
            bits=4,
            block_size=32,
        ),
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        helper.make_node("MatMul", ["h", "filled"], ["y"]),
    ]
    weights = {
        "packed": np.zeros((3, 1, 16), np.uint8),
        "scales": np.ones(3, np.float32),
        "shape": np.array([3, 2]),
    }
    used, skipped = found(write(tmp_path / "m.onnx", nodes, weights, {"x": [2, 32]}))
    assert not used
    assert skipped["packed"] == "MatMulNBits stores several weights in a byte"
    assert "ConstantOfShape" in skipped["filled"]


def test_names_are_those_of_the_tensor_and_its_nodes(tmp_path: Path) -> None:
    used, _ = found(linear(tmp_path / "m.onnx", random(3, 5)))
    assert used["w"].names == ("w", "product")
