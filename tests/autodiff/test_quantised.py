"""Straight through: the gradient is that of the same ops on the numbers that the integers stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import Projection, check_op, run
from onnx import helper

from onnxprune.autodiff import gradient

RANDOM = np.random.default_rng(0)
Weights = dict[str, np.ndarray[Any, Any]]


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def model_of(nodes: list[onnx.NodeProto], weights: Weights, opset: int = 21) -> ir.Model:
    """A model of x with output y."""
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, None)],
        [onnx.ValueInfoProto(name="y")],
        [onnx.numpy_helper.from_array(a, n) for n, a in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=10))


def gradients(model: ir.Model, x: np.ndarray, wrt: list[str]) -> list[np.ndarray]:
    """Of <dy, y> with a random dy, the same each time."""
    model.graph.inputs[0].shape = ir.Shape(x.shape)
    (y,) = run(model, {"x": x}, ["y"])
    dy = np.random.default_rng(9).normal(size=y.shape).astype(np.float32)
    backward = gradient(model, Projection(["y"]), wrt, feeds={"x": x})
    return run(backward, {"x": x, "dy.y": dy}, [f"{name}.grad" for name in wrt])


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op_type, inputs.split(), [output], **attributes)


FINE: Weights = {"s": np.array(0.02, np.float32), "z": np.array(3, np.int8)}
"""A scale at which nothing saturates."""


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("axis", [0, 1])
def test_blocks(axis: int, dynamic: bool) -> None:
    shape = [5, 6]
    shape[axis] = 3
    q, z = (RANDOM.integers(-9, 9, s).astype(np.int8) for s in ([5, 6], shape))
    scales = np.abs(normal(*shape)) + 0.1
    check_op(
        "DequantizeLinear",
        [q, scales, z],
        opset=21,
        constants=[0, 2],
        dynamic=dynamic,
        axis=axis,
        block_size=2,
    )


def test_blocks_straight_through() -> None:
    x, scales = normal(4, 5), np.abs(normal(4, 3)) * 0.02 + 0.03
    scales[0, 0] = 1e-4  # saturates
    weights = {"s": scales, "z": np.zeros((4, 3), np.int8)}
    blocks = {"axis": 1, "block_size": 2}
    nodes = [
        node("QuantizeLinear", "x s z", "q", **blocks),
        node("DequantizeLinear", "q s z", "y", **blocks),
    ]
    dx, ds = gradients(model_of(nodes, weights), x, ["x", "s"])
    plain = model_of([node("Identity", "x", "y")], {})
    (dy,) = gradients(plain, x, ["x"])
    spread = scales.repeat(2, 1)[:, :5]
    steps = np.clip(np.round(x / spread), -128, 127)
    kept = np.abs(steps + 0.5) < 127.5
    np.testing.assert_allclose(dx, dy * kept, rtol=1e-6)
    terms = np.stack([dy * steps, -dy * kept * x / spread])  # large ones, which nearly cancel
    terms = np.pad(terms, [(0, 0), (0, 0), (0, 1)]).reshape(2, 4, 3, 2)
    off = np.abs(ds - terms.sum((0, 3)))
    assert (off <= 1e-6 * np.abs(terms).sum((0, 3))).all()


def test_a_convolution_of_integers() -> None:
    weights = {
        **FINE,
        "w": RANDOM.integers(-9, 9, (4, 3, 3, 3)).astype(np.int8),
        "ws": np.abs(normal(4)) + 0.1,
        "wz": np.zeros(4, np.int8),
        "b": RANDOM.integers(-9, 9, 4).astype(np.int32),
        "ys": np.array(2.0, np.float32),
    }
    attributes = {"pads": [1, 1, 1, 0], "strides": [2, 1]}
    quantise = node("QuantizeLinear", "x s z", "q")
    linear = [
        quantise,
        node("QLinearConv", "q s z w ws wz ys z b", "p", **attributes),
        node("DequantizeLinear", "p ys z", "y"),
    ]
    integer = [
        quantise,
        node("ConvInteger", "q w z", "i", **attributes),
        node("Cast", "i", "c", to=onnx.TensorProto.FLOAT),
        node("Mul", "c columns", "y"),
    ]
    columns = (weights["ws"] * weights["s"]).reshape(-1, 1, 1)
    real = (weights["w"] * weights["ws"].reshape(-1, 1, 1, 1)).astype(np.float32)
    x = normal(2, 3, 6, 6) * 0.5
    (expected,) = gradients(
        model_of([node("Conv", "x w", "y", **attributes)], {"w": real}), x, ["x"]
    )
    for nodes, given in ((linear, weights), (integer, {**weights, "columns": columns})):
        used = {name for n in nodes for name in n.input}
        model = model_of(nodes, {n: a for n, a in given.items() if n in used})
        (dx,) = gradients(model, x, ["x"])
        np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)


def test_a_product_of_integers() -> None:
    weights = {
        **FINE,
        "b": RANDOM.integers(-9, 9, (5, 4)).astype(np.int8),
        "bs": np.abs(normal(4)) + 0.1,
        "bz": RANDOM.integers(-2, 2, 4).astype(np.int8),
        "ys": np.array(2.0, np.float32),
    }
    quantise = node("QuantizeLinear", "x s z", "q")
    linear = [
        quantise,
        node("QLinearMatMul", "q s z b bs bz ys z", "p"),
        node("DequantizeLinear", "p ys z", "y"),
    ]
    integer = [
        quantise,
        node("MatMulInteger", "q b z bz", "i"),
        node("Cast", "i", "c", to=onnx.TensorProto.FLOAT),
        node("Mul", "c columns", "y"),
    ]
    real = ((weights["b"].astype("f") - weights["bz"]) * weights["bs"]).astype("f")
    x = normal(2, 3, 5) * 0.5
    (expected,) = gradients(model_of([node("MatMul", "x b", "y")], {"b": real}), x, ["x"])
    columns = weights["bs"] * weights["s"]
    for nodes, given in ((linear, weights), (integer, {**weights, "columns": columns})):
        used = {name for n in nodes for name in n.input}
        model = model_of(nodes, {n: a for n, a in given.items() if n in used})
        (dx,) = gradients(model, x, ["x"])
        np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-5)


def test_ops_of_onnxruntime_on_integers() -> None:
    ms = {"domain": "com.microsoft"}
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("QLinearLeakyRelu", "q s z s z", "l", alpha=0.5, **ms),
        node("QLinearAdd", "q s z l s z t z", "a", **ms),
        node("QLinearConcat", "t z a t z q s z", "c", axis=1, **ms),
        node("QLinearGlobalAveragePool", "c t z s z", "p", **ms),
        node("DequantizeLinear", "p s z", "y"),
    ]
    plain = [
        node("LeakyRelu", "x", "l", alpha=0.5),
        node("Add", "x l", "a"),
        node("Concat", "a x", "c", axis=1),
        node("GlobalAveragePool", "c", "y"),
    ]
    x = np.round(normal(2, 3, 4, 4) / 0.02) * np.float32(0.02)
    weights = {**FINE, "t": np.array(0.05, np.float32)}
    x[np.abs(x) > 2] = 1
    (dx,) = gradients(model_of(nodes, weights), x, ["x"])
    (expected,) = gradients(model_of(plain, {}), x, ["x"])
    np.testing.assert_allclose(dx, expected, rtol=1e-4, atol=1e-6)


def test_scales_that_follow_the_data() -> None:
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"]),
        node("DequantizeLinear", "q s z", "y"),
    ]
    x = normal(4, 5)
    (dx,) = gradients(model_of(nodes, {}), x, ["x"])
    (dy,) = gradients(model_of([node("Identity", "x", "y")], {}), x, ["x"])
    middle = (x < x.max()) & (x > x.min())  # the extremes move the scale as well
    np.testing.assert_allclose(dx[middle], dy[middle], rtol=1e-5)


@pytest.mark.parametrize("kind", [onnx.TensorProto.INT16, onnx.TensorProto.UINT16])
def test_other_integers(kind: int) -> None:
    nodes = [
        node("QuantizeLinear", "x s", "q", output_dtype=kind),
        node("DequantizeLinear", "q s", "y"),
    ]
    x = np.array([[0.5, 0.25, 1e6]], np.float32)
    weights = {"s": np.array(0.125, np.float32)}
    (dx,) = gradients(model_of(nodes, weights), x, ["x"])
    (dy,) = gradients(model_of([node("Identity", "x", "y")], {}), x, ["x"])
    np.testing.assert_allclose(dx, dy * [1, 1, 0])
