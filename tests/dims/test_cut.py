from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from onnxprune.plan.removal import copies
from tests.dims.exact import assert_cut_equals_mask, build, constants


def test_a_vector_that_two_nodes_share_is_copied_and_the_plan_says_what_each_copy_loses() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,8,4,4] y) {
            a = Conv(x, w1, shared)
            r = Relu(a)
            b = Conv(r, w2, shared)
            s = Relu(b)
            y = Conv(s, w3, shared)
        }""",
        w1=(8, 3, 1, 1),
        w2=(8, 8, 1, 1),
        w3=(8, 8, 1, 1),
        shared=(8,),
    )
    cut = assert_cut_equals_mask(model)
    assert set(cut.plan) == {"w1", "w2", "w3"}
    found = copies(cut.tracing, cut.keep)
    assert [copy["readers"] for copy in found["shared"]] == [[["a", 2]], [["b", 2]]]
    whole = numpy_helper.to_array(constants(model)["shared"])
    for copy, weight in zip(found["shared"], ("w1", "w2"), strict=True):
        ((output, index),) = copy["readers"]
        assert copy["removed"] == {"0": cut.plan[weight]["0"]}
        node = next(node for node in cut.pruned.graph.node if output in node.output)
        kept = numpy_helper.to_array(constants(cut.pruned)[node.input[index]])
        assert np.array_equal(kept, np.delete(whole, copy["removed"]["0"]))
    assert cut.shape("shared") == (8,)


def test_nodes_that_lose_the_same_share_one_tensor() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1, shared)
            b = Conv(x, w2, shared)
            s = Add(a, b)
            r = Relu(s)
            y = Conv(r, w3)
        }""",
        w1=(8, 3, 1, 1),
        w2=(8, 3, 1, 1),
        w3=(2, 8, 1, 1),
        shared=(8,),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.plan["shared"] == {"0": cut.plan["w1"]["0"]}
    assert copies(cut.tracing, cut.keep) == {}


def test_sizes_below_zero_are_left_out() -> None:
    """Paddle's exporter writes -1 for an open axis, and converters keep it at values that are no outputs any more."""
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        w1=(6, 8),
        w2=(8, 5),
    )
    model.graph.value_info.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, [-1, 8]))
    cut = assert_cut_equals_mask(model)
    (known,) = [value for value in cut.pruned.graph.value_info if value.name == "r"]
    first, second = known.type.tensor_type.shape.dim
    assert not first.HasField("dim_value")
    assert second.dim_value == 4
