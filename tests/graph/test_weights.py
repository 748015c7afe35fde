from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from onnxprune.graph import Weight, load, replace, save, weights
from tests.graph.files import branches, called_twice, filled, info, model, saved, two_layers
from tests.models import random


def only(path: Path, name: str) -> tuple[ir.Model, Weight]:
    loaded = load(path)
    (weight,) = [weight for weight in weights(loaded) if weight.name == name]
    return loaded, weight


def run(path: Path, x: np.ndarray) -> np.ndarray:
    made = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return made.run(None, {"x": x})[0]


def test_order_and_kinds(tmp_path: Path) -> None:
    found = weights(load(saved(branches(), tmp_path)))
    assert [(w.name, w.kind, w.graph.name) for w in found] == [
        ("e", "constant", "else"),
        ("t", "initializer", "then"),
    ]


def test_functions_have_weights_too(tmp_path: Path) -> None:
    (weight,) = weights(load(saved(called_twice(), tmp_path)))
    assert (weight.name, weight.kind, weight.array().tolist()) == ("k", "constant", [3.0])


@pytest.mark.parametrize(
    ("attribute", "value", "expected"),
    [
        ("value_float", 1.5, np.float32(1.5)),
        ("value_floats", [1.0, 2.0], np.float32([1, 2])),
        ("value_int", 7, np.int64(7)),
        ("value_ints", [3, 4], np.int64([3, 4])),
        ("value_strings", ["a", "b"], np.array([b"a", b"b"], object)),
        ("value_string", "a", np.array(b"a", object)),
    ],
)
def test_every_way_to_write_a_constant(
    tmp_path: Path, attribute: str, value: object, expected: np.ndarray
) -> None:
    nodes = [
        helper.make_node("Constant", [], ["c"], **{attribute: value}),
        helper.make_node("Identity", ["x"], ["y"]),
    ]
    proto = model(helper.make_graph(nodes, "g", [info("x", 1)], [info("y", 1)]))
    loaded, weight = only(saved(proto, tmp_path), "c")
    assert weight.shape == np.shape(expected)
    size = sum(map(len, np.ravel(expected))) if expected.dtype == object else expected.nbytes
    assert weight.nbytes == size
    np.testing.assert_array_equal(weight.array(), expected)
    replace(weight, weight.array())
    save(loaded, tmp_path / "out.onnx")
    _, again = only(tmp_path / "out.onnx", "c")
    np.testing.assert_array_equal(again.array(), expected)


def test_arguments_of_functions_are_no_weights(tmp_path: Path) -> None:
    proto = called_twice()
    constant = proto.functions[0].node[0]
    del constant.attribute[:]
    constant.attribute.add(
        name="value", ref_attr_name="k", type=onnx.AttributeProto.AttributeType.TENSOR
    )
    proto.functions[0].attribute.append("k")
    assert not weights(load(saved(proto, tmp_path)))


def test_replaced_initializer_is_used_and_saved(tmp_path: Path) -> None:
    loaded, weight = only(saved(two_layers(), tmp_path), "b")
    new = random(64, 8, seed=9)
    replace(weight, new)
    np.testing.assert_array_equal(weight.array(), new)
    save(loaded, tmp_path / "out.onnx")
    proto = two_layers()
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(new, "b"))
    onnx.save(proto, tmp_path / "expected.onnx")
    x = random(2, 16)
    np.testing.assert_array_equal(run(tmp_path / "out.onnx", x), run(tmp_path / "expected.onnx", x))


def test_replaced_weights_of_a_listed_input_change_its_declared_shape(tmp_path: Path) -> None:
    proto = two_layers()
    proto.ir_version = 3
    proto.graph.input.extend([info("a", 16, 64), info("b", 64, 8)])
    loaded = load(saved(proto, tmp_path))
    first, second = weights(loaded)
    kept = np.arange(0, 64, 2)
    expected = np.maximum(random(2, 16) @ first.array()[:, kept], 0) @ second.array()[kept]
    replace(first, first.array()[:, kept])
    replace(second, second.array()[kept])
    save(loaded, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    declared = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in out.graph.input[1:]
    }
    assert declared == {"a": [16, 32], "b": [32, 8]}
    onnx.checker.check_model(out, full_check=True)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", random(2, 16)), expected, rtol=1e-4)


def test_branches_use_their_new_weights(tmp_path: Path) -> None:
    loaded = load(saved(branches(), tmp_path))
    for weight in weights(loaded):
        replace(weight, weight.array() * 10)
    save(loaded, tmp_path / "out.onnx")
    made = ort.InferenceSession(tmp_path / "out.onnx", providers=["CPUExecutionProvider"])
    x = np.ones(4, np.float32)
    yes = made.run(None, {"c": np.array(True), "x": x})[0]
    no = made.run(None, {"c": np.array(False), "x": x})[0]
    assert yes.tolist() == [21] * 4
    assert no.tolist() == [30] * 4


def test_filled_weights_stay_small_while_they_are_uniform(tmp_path: Path) -> None:
    loaded, weight = only(saved(filled(), tmp_path), "w")
    assert (weight.kind, weight.shape, weight.nbytes) == ("constant_of_shape", (4, 6), 96)
    assert (weight.array() == 0.5).all()
    replace(weight, np.full((4, 3), 0.5, np.float32))
    assert weight.shape == (4, 3)
    save(loaded, tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    assert "ConstantOfShape" in {node.op_type for node in out.graph.node}
    assert run(tmp_path / "out.onnx", np.ones((1, 4), np.float32)).tolist() == [[2.0] * 3]


def test_filled_weights_become_constants_when_they_are_not_uniform(tmp_path: Path) -> None:
    loaded, weight = only(saved(filled(), tmp_path), "w")
    new = np.arange(24, dtype=np.float32).reshape(4, 6)
    replace(weight, new)
    np.testing.assert_array_equal(weight.array(), new)
    save(loaded, tmp_path / "out.onnx")
    x = random(1, 4)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", x), x @ new, rtol=1e-5)
    _, again = only(tmp_path / "out.onnx", "w")
    assert again.kind == "constant"


def test_floats_are_converted_to_the_type_of_the_weight(tmp_path: Path) -> None:
    _, weight = only(saved(two_layers(), tmp_path), "a")
    replace(weight, np.ones((16, 64), np.float64))
    assert weight.dtype == ir.DataType.FLOAT
    assert weight.array().dtype == np.float32


def test_other_types_are_refused(tmp_path: Path) -> None:
    _, weight = only(saved(filled(), tmp_path), "shape")
    with pytest.raises(TypeError, match="'shape' has type INT64"):
        replace(weight, np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match="'shape' has type INT64"):
        replace(weight, ir.tensor(np.float32([1.0])))


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.int4, np.float16])
def test_types_beyond_numpys(tmp_path: Path, dtype: type) -> None:
    proto = two_layers()
    new = np.arange(-6, 6).reshape(3, 4).astype(dtype)
    proto.graph.initializer.append(ir.to_proto(ir.tensor(new, name="extra")))
    loaded, weight = only(saved(proto, tmp_path), "extra")
    assert weight.nbytes == (6 if dtype is ml_dtypes.int4 else 24)
    replace(weight, new[:, ::-1])
    save(loaded, tmp_path / "out.onnx")
    _, again = only(tmp_path / "out.onnx", "extra")
    np.testing.assert_array_equal(again.array(), new[:, ::-1])
