from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.dims import trace
from onnxprune.graph import inline, load
from onnxprune.runtime.measure import measure
from tests.dims.exact import assert_cut_equals_mask, build, prune


def test_inputs_and_outputs_are_the_interface() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y, float[N,8] a) {
            a = MatMul(x, w1)
            h = MatMul(a, w2)
            y = MatMul(h, w3)
        }""",
        w1=(6, 8),
        w2=(8, 10),
        w3=(10, 5),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("w3") == (5, 5)
    frozen = {info.name: info.dim.frozen for info in cut.tracing.dims}
    assert frozen["w1:0"] == "it is part of graph input x"
    assert frozen["w1:1"] == "it feeds graph output a"
    assert frozen["w2:1"] is None


def test_tracing_changes_nothing_and_is_repeatable() -> None:
    cut = prune(
        build(
            "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) y = MatMul(a, w2) }",
            w1=(6, 8),
            w2=(8, 5),
        )
    )
    model = cut.tracing.model
    before = [(node.op_type, [v and v.name for v in node.inputs]) for node in model.graph]
    again = trace(model, measure(model))
    assert [info.name for info in again.dims] == [info.name for info in cut.tracing.dims]
    assert before == [(node.op_type, [v and v.name for v in node.inputs]) for node in model.graph]


def test_a_constant_read_as_sizes_by_one_node_and_as_weights_by_another() -> None:
    """The scales of a Resize that happen to be the bias of a convolution keep their four elements."""
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,8,8] y) {
            a = Conv(x, w1, shared)
            r = Resize<mode="nearest">(a, , shared)
            y = Conv(r, w2)
        }""",
        w1=(4, 3, 1, 1),
        shared=np.array([1, 1, 2, 2], "f4"),
        w2=(2, 4, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (2, 3, 1, 1)
    assert cut.shape(cut.node("Conv").input[2]) == (2,)
    assert cut.shape(cut.node("Resize").input[2]) == (4,)


def test_a_weight_that_is_an_output_stays() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y, float[6,8] w1) {
            a = MatMul(x, w1)
            y = MatMul(a, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
    )
    cut = prune(model)
    assert cut.shape("w1") == (6, 8)


def test_fixed_and_open_sizes_in_annotations_follow() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) <float[N,8] a> {
            a = MatMul(x, w1)
            y = MatMul(a, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model)
    known = {info.name: info.type.tensor_type.shape.dim for info in cut.pruned.graph.value_info}
    assert [d.dim_param or d.dim_value for d in known["a"]] == ["N", 4]


def hidden(name: str, width: int) -> onnx.FunctionProto:
    """A function with a hidden layer, whose constants are called `w` and `v` in each."""
    nodes = [
        helper.make_node(
            "Constant", [], [each], value=numpy_helper.from_array(np.ones(shape, "f4"), each)
        )
        for each, shape in (("w", (6, width)), ("v", (width, 6)))
    ]
    nodes += [
        helper.make_node("MatMul", ["a", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["b"]),
    ]
    return helper.make_function("own", name, ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


def test_of_several_tensors_of_one_name_only_the_last_can_be_cut(tmp_path: Path) -> None:
    """A plan names tensors, and the name stands for the last of them."""
    model = build("(float[N,6] x) => (float[N,6] y) { m = own.F(x) y = own.G(m) }")
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.extend([hidden("F", 8), hidden("G", 10)])
    onnx.save(model, tmp_path / "in.onnx")
    flat = inline(load(tmp_path / "in.onnx"))
    frozen = {info.size: info.dim.frozen for info in trace(flat, measure(flat)).dims}
    assert frozen[10] is None
    assert frozen[8] == "its tensor's name stands for several tensors of the file"
