from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.dims.exact import assert_cut_equals_mask, build, constants, prune


def test_indices_of_gather_are_renumbered() -> None:
    order = np.array([4, 5, 6, 7, 0, 1, 2, 3])
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            g = Gather<axis=1>(a, order)
            s = Add(a, g)
            y = Conv(s, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
        order=order,
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4


def test_a_list_of_indices_may_have_axes_of_size_one() -> None:
    """PyTorch's exporter writes a view by strides as a Gather of all positions."""
    model = build(
        """(float[1,3,4,4] x) => (float[1,2] y) {
            a = Conv(x, w1)
            m = GlobalAveragePool(a)
            flat = Reshape(m, eight)
            view = Gather(flat, positions)
            p = Reshape(view, row)
            y = Gemm<transB=1>(p, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8),
        eight=np.array([8]),
        row=np.array([1, 8]),
        positions=np.arange(8).reshape(1, 8, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4
    assert cut.shape("positions") == (1, 4, 1, 1)


def test_such_a_list_may_be_computed() -> None:
    """The positions of a sequence, which tf2onnx counts in an axis of samples: the sum would take a vector as well."""
    model = build(
        """(float[1,7,8] x) => (float[1,7,8] y) {
            count = Range(zero, seven, one)
            positions = Unsqueeze(count, first)
            e = Gather(table, positions)
            y = Add(x, e)
        }""",
        table=(10, 8),
        zero=np.array(0, np.int32),
        one=np.array(1, np.int32),
        seven=np.array(7, np.int32),
        first=np.array([0]),
    )
    cut = assert_cut_equals_mask(model, sparsity=0.9)
    assert cut.shape("table")[0] == 8
    (gather,) = [node for node in cut.pruned.graph.node if node.op_type == "Gather"]
    kept = constants(cut.pruned)[gather.input[1]]
    assert (kept.dims, kept.data_type) == ([1, 7], onnx.TensorProto.INT32)


def test_messages_along_the_edges_of_a_graph() -> None:
    """Rows are picked and summed up by indices that are repeated for every channel."""
    model = build(
        """(float[N,6] x, int64[E] from, int64[E] to) => (float[N,3] y) {
            a = MatMul(x, w1)
            h = Relu(a)
            f = Unsqueeze(from, last)
            t = Unsqueeze(to, last)
            edges = Shape(from)
            sizes = Concat<axis=0>(edges, width)
            fs = Expand(f, sizes)
            ts = Expand(t, sizes)
            messages = GatherElements<axis=0>(h, fs)
            zeros = Mul(h, zero)
            sums = ScatterElements<axis=0, reduction="add">(zeros, ts, messages)
            y = MatMul(sums, w2)
        }""",
        opset=18,
        w1=(6, 10),
        w2=(10, 3),
        last=np.array([1]),
        width=np.array([10]),
        zero=np.float32(0),
    )
    shapes = {"x": (4, 6), "from": (7,), "to": (7,)}
    cut = assert_cut_equals_mask(model, shapes=shapes, others=[{**shapes, "x": (5, 6)}])
    assert cut.shape("w1") == (6, 5)


@pytest.mark.parametrize("op", ["GatherElements", "ScatterElements"])
def test_an_axis_that_indices_work_along_stays(op: str) -> None:
    model = build(
        f"""(float[N,6] x) => (float[8,6] y) {{
            e = {op}<axis=1>(w1, picks{", w1" if op == "ScatterElements" else ""})
            y = MatMul(e, w2)
        }}""",
        w1=(8, 10),
        w2=(10, 6),
        picks=np.zeros((8, 10), np.int64),
    )
    frozen = {d.name: d.dim.frozen for d in prune(model, sparsity=0).tracing.dims}
    assert frozen["w1:1"] == f"{op} works along it"
