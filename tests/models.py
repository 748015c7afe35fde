"""Small ONNX models for tests of plans, built by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

DIGITS = Path(__file__).resolve().parent.parent / "models"


def random(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def write(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, Sequence[int | str]],
    output: str = "y",
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = ("com.microsoft",),
) -> Path:
    """Saves a float32 model of opset 17 and gives back its path."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(k, TensorProto.FLOAT, v) for k, v in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(d, 1) for d in domains)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)
    onnx.save(model, path)
    return path


def linear(path: Path, weight: np.ndarray, name: str = "w") -> Path:
    """`y = x @ weight`."""
    nodes = [helper.make_node("MatMul", ["x", name], ["y"], name="product")]
    return write(path, nodes, {name: weight}, {"x": ["n", weight.shape[0]]})


def named(model: ir.Model, name: str) -> np.ndarray:
    """The numbers of an initializer."""
    tensor = model.graph.initializers[name].const_value
    assert tensor is not None
    return tensor.numpy()
