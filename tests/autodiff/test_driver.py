from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import check, one_node, run
from onnx import helper

from onnxprune import autodiff
from onnxprune.autodiff import NoGradientError, Output, gradient
from onnxprune.autodiff.registry import Call, Gradients

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    outputs: Sequence[str],
    weights: dict[str, np.ndarray],
    shape: Sequence[int | str] = ("n", 4),
    opset: int = 18,
) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("test", 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=imports, ir_version=8))


def two_layers(opset: int = 18) -> ir.Model:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "a"], ["u"]),
        helper.make_node("Add", ["u", "b"], ["y"]),
    ]
    return model_of(nodes, ["y"], {"a": normal(4, 4), "b": normal(4)}, opset=opset)


@pytest.mark.parametrize("opset", [7, 9, 13, 18, 21, 24, 26])
def test_a_weight_used_twice_gets_the_sum(opset: int) -> None:
    check(two_layers(opset), {"x": normal(3, 4)}, wrt=["a", "b", "x"])


def test_outputs_are_the_loss_and_the_gradients_in_order() -> None:
    result = gradient(two_layers(), "y", ["b", "t", "a"])
    assert [v.name for v in result.graph.outputs] == ["loss", "b.grad", "t.grad", "a.grad"]


def test_the_model_stays_as_it_is() -> None:
    model = two_layers()
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    gradient(model, "y", ["a"])
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_one_gradient_model_runs_at_any_batch() -> None:
    result = gradient(two_layers(), "y", ["b"])
    for batch in (1, 5):
        _, grad = run(result, {"x": normal(batch, 4)}, ["loss", "b.grad"])
        np.testing.assert_array_equal(grad, np.full(4, batch, np.float32))


def test_the_gradient_of_an_intermediate_value() -> None:
    result = gradient(two_layers(), "y", ["u", "x"])
    (grad,) = run(result, {"x": normal(2, 4)}, ["u.grad"])
    np.testing.assert_array_equal(grad, np.ones((2, 4), np.float32))


def test_what_the_loss_does_not_see_has_a_gradient_of_zeros() -> None:
    result = gradient(two_layers(), "t", ["b"])
    (grad,) = run(result, {"x": normal(2, 4)}, ["b.grad"])
    np.testing.assert_array_equal(grad, np.zeros(4, np.float32))


def test_only_what_the_gradients_need_is_kept() -> None:
    result = gradient(two_layers(), Output("t"), ["x"])
    assert "Add" not in {node.op_type for node in result.graph}


def test_the_gradient_of_a_gradient() -> None:
    once = gradient(two_layers(), "y", ["x"])
    del once.graph.outputs[0]
    check(once, {"x": normal(2, 4)}, wrt=["a", "x"])


def unknown_op() -> ir.Model:
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node("Inverse", ["m"], ["d"], name="the_inverse", domain="com.microsoft"),
        helper.make_node("Exp", ["d"], ["y"]),
    ]
    return model_of(nodes, ["y"], {"w": normal(4, 4)}, shape=(4, 4))


def test_an_op_without_a_rule_is_named_with_its_node_and_path() -> None:
    with pytest.raises(NoGradientError) as caught:
        gradient(unknown_op(), "y", ["w"])
    message = str(caught.value)
    assert "Inverse (node 'the_inverse')" in message
    assert "Inverse -> Exp -> loss" in message
    assert "vjp('Inverse'" in message


def test_an_op_without_a_rule_beside_the_path_does_not_matter() -> None:
    gradient(unknown_op(), "m", ["w"])


@pytest.mark.parametrize("name", ["nothing", "y"])
def test_what_has_no_gradient_is_an_error(name: str) -> None:
    model, _ = one_node("ArgMax", [normal(3, 4)])
    model.graph.outputs[0].name = "y"
    with pytest.raises(NoGradientError, match=name):
        gradient(model, Output("x0"), [name])


def test_registering_twice_is_an_error() -> None:
    def rule(call: Call, dy: autodiff.Tensor) -> Gradients:
        return (dy,)

    assert ("", "Relu") in autodiff.registered()
    with pytest.raises(ValueError, match="Relu"):
        autodiff.vjp("Relu")(rule)


def test_a_branch_that_is_always_taken() -> None:
    def branch(op_type: str) -> onnx.GraphProto:
        node = helper.make_node(op_type, ["m"], ["out"])
        return helper.make_graph([node], op_type, [], [onnx.ValueInfoProto(name="out")])

    nodes = [
        helper.make_node("Mul", ["x", "w"], ["m"]),
        helper.make_node(
            "If", ["always"], ["y"], then_branch=branch("Tanh"), else_branch=branch("Exp")
        ),
    ]
    model = model_of(nodes, ["y"], {"w": normal(4), "always": np.array(True)})
    check(model, {"x": normal(2, 4)}, wrt=["w", "x"])


def test_quantisation_passes_gradients_straight_through() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("Reshape", ["q", "shape"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "s", "z"], ["y"]),
    ]
    weights = {
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.int8),
        "shape": np.array([-1], np.int64),
    }
    result = gradient(model_of(nodes, ["y"], weights), "y", ["x"])
    x = np.array([[0.5, -3.0, 20.0, -20.0]], np.float32)
    (grad,) = run(result, {"x": x}, ["x.grad"])
    np.testing.assert_allclose(grad, [[1, 1, 0, 0]], rtol=1e-6)
