from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


def test_convolutions_with_a_residual_keep_the_same_channels() -> None:
    model = build(
        """(float[N,3,8,8] x) => (float[N,5] y) {
            a = Conv<pads=[1,1,1,1]>(x, w1, b1)
            r = Relu(a)
            c = Conv<pads=[1,1,1,1]>(r, w2)
            s = Add(c, r)
            p = GlobalAveragePool(s)
            f = Flatten(p)
            y = Gemm<transB=1>(f, v, u)
        }""",
        w1=(8, 3, 3, 3),
        b1=(8,),
        w2=(8, 8, 3, 3),
        v=(5, 8),
        u=(5,),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (4, 3, 8, 8)}])
    assert cut.shape("w1") == (4, 3, 3, 3)
    assert cut.shape("w2") == (4, 4, 3, 3)
    assert cut.shape("v") == (5, 4)
    assert cut.plan["w1"]["0"] == cut.plan["w2"]["0"] == cut.plan["w2"]["1"] == cut.plan["v"]["1"]


def test_depthwise_convolution_follows_its_channels() -> None:
    model = build(
        """(float[N,3,8,8] x) => (float[N,2,6,6] y) {
            a = Conv(x, w1)
            d = Conv<group=8, pads=[1,1,1,1]>(a, w2, b2)
            c = Clip(d, lo, hi)
            y = Conv(c, w3)
        }""",
        w1=(8, 3, 3, 3),
        w2=(8, 1, 3, 3),
        b2=(8,),
        w3=(2, 8, 1, 1),
        lo=np.float32(0),
        hi=np.float32(6),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (4, 1, 3, 3)
    assert cut.shape("w3") == (2, 4, 1, 1)
    assert cut.attribute("Conv", "group", 1) == 4


def test_depthwise_convolution_with_a_multiplier() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            d = Conv<group=6>(a, w2)
            y = Conv(d, w3)
        }""",
        w1=(6, 3, 1, 1),
        w2=(12, 1, 1, 1),
        w3=(2, 12, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w3")[1] < 12


@pytest.mark.parametrize("groups", [2, 4])
def test_grouped_convolution_is_cut_in_groups_or_inside_them(groups: int) -> None:
    model = build(
        f"""(float[N,3,8,8] x) => (float[N,2,8,8] y) {{
            a = Conv(x, w1)
            c = Conv<group={groups}, pads=[1,1,1,1]>(a, w2, b2)
            y = Conv(c, w3)
        }}""",
        w1=(16, 3, 1, 1),
        w2=(16, 16 // groups, 3, 3),
        b2=(16,),
        w3=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 8
    assert cut.shape("w3")[1] == 8


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolution(groups: int) -> None:
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,8,8] y) {{
            a = Conv(x, w1)
            c = ConvTranspose<group={groups}, strides=[2,2], kernel_shape=[2,2]>(a, w2, b2)
            y = Conv(c, w3)
        }}""",
        w1=(8, 3, 1, 1),
        w2=(8, 8 // groups, 2, 2),
        b2=(8,),
        w3=(2, 8, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4
    assert cut.shape("w3")[1] == 4


def test_one_bias_of_two_convolutions_becomes_two() -> None:
    rising = np.arange(1, 9, dtype="f4").reshape(8, 1, 1, 1) * np.ones((8, 3, 1, 1), "f4")
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1, b)
            c = Conv(x, w2, b)
            d = Conv(a, w3)
            e = Conv(c, w4)
            y = Add(d, e)
        }""",
        w1=rising,
        w2=rising[::-1],
        b=(8,),
        w3=np.ones((2, 8, 1, 1), "f4"),
        w4=np.ones((2, 8, 1, 1), "f4"),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == cut.shape("w2") == (4, 3, 1, 1)
    assert cut.plan["w1"] != cut.plan["w2"]
    assert cut.node("Conv", 0).input[2] != cut.node("Conv", 1).input[2]


def test_a_linear_layer_after_flatten_loses_whole_maps() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,5] y) {
            a = Conv(x, w1)
            f = Flatten(a)
            y = Gemm<transB=1>(f, v)
        }""",
        w1=(8, 3, 1, 1),
        v=(5, 128),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 4, 4)}])
    assert cut.shape("v") == (5, 64)


@pytest.mark.parametrize("transposed", [0, 1])
def test_hidden_units_of_a_multilayer_perceptron(transposed: int) -> None:
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,6] y) {{
            a = MatMul(x, w1)
            b = Add(a, b1)
            t = Tanh(b)
            c = MatMul(t, w2)
            r = Reshape(c, flat)
            g = Gemm<transB={transposed}>(r, w3, b3)
            e = Relu(g)
            h = MatMul(e, w4)
            y = Reshape(h, back)
        }}""",
        w1=(6, 16),
        b1=(16,),
        w2=(16, 10),
        w3=(12, 10) if transposed else (10, 12),
        b3=(12,),
        w4=(12, 6),
        flat=np.array([-1, 10]),
        back=np.array([1, -1, 6]),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (1, 13, 6)}])
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("b1") == (8,)
    assert cut.shape("w2") == (8, 5)
    assert cut.shape("w4") == (6, 6)


def test_gated_perceptron_with_one_matrix_for_gate_and_up() -> None:
    model = build(
        """(float[N,T,6] x) => (float[N,T,6] y) {
            a = MatMul(x, w1)
            gate, up = Split<axis=-1>(a, halves)
            s = Sigmoid(gate)
            g = Mul(gate, s)
            m = Mul(g, up)
            y = MatMul(m, w2)
        }""",
        w1=(6, 16),
        w2=(8, 6),
        halves=np.array([8, 8]),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 5, 6)}])
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("w2") == (4, 6)
    gone = cut.plan["w2"]["0"]
    assert cut.plan["w1"]["1"] == gone + [8 + k for k in gone]


def test_squeeze_and_excitation_gate() -> None:
    model = build(
        """(float[N,3,8,8] x) => (float[N,2,8,8] y) {
            a = Conv(x, w1, b1)
            p = GlobalAveragePool(a)
            c = Conv(p, w2, b2)
            r = Relu(c)
            d = Conv(r, w3, b3)
            s = HardSigmoid(d)
            m = Mul(a, s)
            y = Conv(m, w4)
        }""",
        w1=(16, 3, 1, 1),
        b1=(16,),
        w2=(4, 16, 1, 1),
        b2=(4,),
        w3=(16, 4, 1, 1),
        b3=(16,),
        w4=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (8, 3, 1, 1)
    assert cut.shape("w2") == (2, 8, 1, 1)
    assert cut.shape("w3") == (8, 2, 1, 1)
    assert cut.shape("w4") == (2, 8, 1, 1)


@pytest.mark.parametrize(
    ("equation", "shape"),
    [
        ("btd,de->bte", (8, 12)),
        ("btd,ed->bte", (12, 8)),
        ("...d,de->...e", (8, 12)),
        ("btd, dhk -> bthk", (8, 3, 4)),
    ],
)
def test_einsum(equation: str, shape: tuple[int, ...]) -> None:
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,5] y) {{
            a = MatMul(x, w1)
            e = Einsum<equation="{equation}">(a, w2)
            f = Reshape(e, flat)
            y = MatMul(f, w3)
        }}""",
        w1=(6, 8),
        w2=shape,
        flat=np.array([0, 0, 12]),
        w3=(12, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 7, 6)}])
    assert cut.shape("w1") == (6, 4)
    assert np.prod(cut.shape("w2")) <= np.prod(shape) // 2


def test_embedding_width_shared_with_the_positions() -> None:
    model = build(
        """(int64[N,8] ids) => (float[N,8,5] y) {
            e = Gather(table, ids)
            s = Add(e, positions)
            r = Relu(s)
            y = MatMul(r, w)
        }""",
        table=(10, 12),
        positions=(1, 8, 12),
        w=(12, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"ids": (3, 8)}])
    assert cut.shape("table") == (10, 6)
    assert cut.shape("positions") == (1, 8, 6)


def test_a_matrix_read_twice_is_cut_once() -> None:
    model = build(
        """(float[N,8] x) => (float[N,8] y) {
            a = MatMul(x, w0)
            b = MatMul(a, w)
            c = Relu(b)
            d = MatMul(c, w)
            y = MatMul(d, w1)
        }""",
        w0=(8, 12),
        w=(12, 12),
        w1=(12, 8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w") == (6, 6)


def test_tied_embedding_and_head_lose_width_only() -> None:
    model = build(
        """(int64[N,T] ids) => (float[N,T,10] y) {
            e = Gather(table, ids)
            h = Relu(e)
            t = Transpose<perm=[1,0]>(table)
            y = MatMul(h, t)
        }""",
        table=(10, 12),
    )
    cut = assert_cut_equals_mask(model, others=[{"ids": (3, 8)}])
    assert cut.shape("table") == (10, 6)


@pytest.mark.parametrize("ir_version", [3, 9])
def test_initializers_that_are_inputs_stay_inputs(ir_version: int) -> None:
    model = build(
        """(float[N,6] x, float[6,8] w1, float[8] b1, float[8,5] w2) => (float[N,5] y) {
            a = MatMul(x, w1)
            b = Add(a, b1)
            r = Relu(b)
            y = MatMul(r, w2)
        }""",
        opset=9,
        ir_version=ir_version,
        w1=(6, 8),
        b1=(8,),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w2") == (4, 5)
    known = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in cut.pruned.graph.input
    }
    assert known["w1"] == [6, 4]
    assert known["b1"] == [4]


def test_weights_in_constant_nodes() -> None:
    model = build(
        """(float[N,2] x) => (float[N,2] y) {
            w1 = Constant<value = float[2,4] {1, 2, 3, 4, 5, 6, 7, 8}>()
            b1 = Constant<value = float[4] {1, 2, 3, 4}>()
            w2 = Constant<value = float[4,2] {1, 2, 3, 4, 5, 6, 7, 8}>()
            a = MatMul(x, w1)
            b = Add(a, b1)
            r = Relu(b)
            y = MatMul(r, w2)
        }"""
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 2)}])
    assert cut.shape("w1") == (2, 2)
    assert cut.shape("w2") == (2, 2)


def test_weights_made_by_constant_of_shape() -> None:
    model = build(
        """(float[N,4] x) => (float[N,3] y) {
            w1 = ConstantOfShape<value = float[1] {0.5}>(s1)
            w2 = ConstantOfShape<value = float[1] {0.25}>(s2)
            a = MatMul(x, w1)
            r = Relu(a)
            y = MatMul(r, w2)
        }""",
        s1=np.array([4, 8]),
        s2=np.array([8, 3]),
    )
    cut = assert_cut_equals_mask(model)
    sizes = [np.frombuffer(t.raw_data, "i8").tolist() for t in cut.pruned.graph.initializer]
    assert sizes == [[4, 4], [4, 3]]
