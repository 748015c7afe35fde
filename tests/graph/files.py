"""Models in the shapes that exporters give them, for the tests of reading and writing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.models import random

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"


def info(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(graph: onnx.GraphProto, ir_version: int = 9, opset: int = 17) -> onnx.ModelProto:
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, ir_version=ir_version, opset_imports=imports)


def two_layers(width: int = 64) -> onnx.ModelProto:
    """`y = relu(x @ a) @ b` with 16 inputs and 8 outputs."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    weights = {"a": random(16, width, seed=1), "b": random(width, 8, seed=2)}
    initializers = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", [info("x", "n", 16)], [info("y", "n", 8)], initializers)
    return model(graph)


def with_external_data(folder: Path, width: int = 64) -> Path:
    """`two_layers` with both weights in `weights.bin`."""
    path = folder / "model.onnx"
    onnx.save(
        two_layers(width),
        path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path


def set_location(path: Path, **entries: str) -> None:
    """Overwrites the external-data entries of all initializers of a file."""
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = entries.get(entry.key, entry.value)
    path.write_bytes(proto.SerializeToString())


def branches() -> onnx.ModelProto:
    """An If whose branches hold a weight each, one an initializer, one a Constant."""
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "t"], ["yes"])],
        "then",
        [],
        [info("yes", 4)],
        [numpy_helper.from_array(np.full(4, 2, np.float32), "t")],
    )
    constant = helper.make_node(
        "Constant", [], ["e"], value=numpy_helper.from_array(np.full(4, 3, np.float32))
    )
    otherwise = helper.make_graph(
        [constant, helper.make_node("Mul", ["x", "e"], ["no"])], "else", [], [info("no", 4)]
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=otherwise)
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    return model(helper.make_graph([node], "g", [condition, info("x", 4)], [info("y", 4)]))


def filled() -> onnx.ModelProto:
    """`y = x @ w` where w, (4, 6), is made by a ConstantOfShape that holds 0.5."""
    value = numpy_helper.from_array(np.full(1, 0.5, np.float32))
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["w"], value=value),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    shape = numpy_helper.from_array(np.array([4, 6], np.int64), "shape")
    return model(helper.make_graph(nodes, "g", [info("x", 1, 4)], [info("y", 1, "m")], [shape]))


def called_twice() -> onnx.ModelProto:
    """A local function `Scale(x) = x * k`, k a Constant of 3, called twice in a row."""
    constant = helper.make_node(
        "Constant", [], ["k"], value=numpy_helper.from_array(np.float32([3.0]))
    )
    function = helper.make_function(
        "local",
        "Scale",
        ["a"],
        ["b"],
        [constant, helper.make_node("Mul", ["a", "k"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [
        helper.make_node("Scale", ["x"], ["m"], domain="local"),
        helper.make_node("Scale", ["m"], ["y"], domain="local"),
    ]
    graph = helper.make_graph(nodes, "g", [info("x", 4)], [info("y", 4)])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_model(graph, ir_version=9, opset_imports=imports, functions=[function])


def saved(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "in.onnx"
    path.write_bytes(proto.SerializeToString())
    return path
