from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.dims.exact import assert_cut_equals_mask, build

RANDOM = np.random.default_rng(0)


def i8(*shape: int) -> np.ndarray:
    return RANDOM.integers(-100, 100, shape).astype(np.int8)


def u8(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 255, shape).astype(np.uint8)


def scales(n: int) -> np.ndarray:
    return RANDOM.uniform(0.01, 0.02, n).astype("f4")


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("zero", [0, 3])
def test_quantise_and_dequantise_pairs(per_channel: bool, zero: int) -> None:
    def parameters(n: int) -> tuple[np.ndarray, np.ndarray]:
        if per_channel:
            return scales(n), np.zeros(n, np.int8)
        return np.float32(0.01), np.array(zero, np.int8)

    (s1, z1), (s2, z2) = parameters(8), parameters(2)
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            q = QuantizeLinear(x, sx, zx)
            d = DequantizeLinear(q, sx, zx)
            f1 = DequantizeLinear<axis=0>(w1, s1, z1)
            fb = DequantizeLinear<axis=0>(b1, sb, zb)
            a = Conv(d, f1, fb)
            r = Relu(a)
            q2 = QuantizeLinear(r, sx, zx)
            d2 = DequantizeLinear(q2, sx, zx)
            f2 = DequantizeLinear<axis=0>(w2, s2, z2)
            y = Conv(d2, f2)
        }""",
        w1=i8(8, 3, 1, 1),
        s1=s1,
        z1=z1,
        b1=RANDOM.integers(-100, 100, 8).astype(np.int32),
        sb=np.float32(0.01),
        zb=np.array(0, np.int32),
        w2=i8(2, 8, 1, 1),
        s2=s2,
        z2=z2,
        sx=np.float32(0.02),
        zx=np.array(100, np.uint8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (4, 3, 1, 1)
    assert cut.shape("b1") == (4,)
    assert cut.shape("w2") == (2, 4, 1, 1)
    assert cut.shape("s1") == ((4,) if per_channel else ())


def test_quantised_convolutions() -> None:
    model = build(
        """(uint8[N,3,4,4] x) => (uint8[N,2,4,4] y) {
            a = QLinearConv(x, sx, zx, w1, s1, z1, sx, zx, b1)
            g = QLinearConv<group=8>(a, sx, zx, wd, s1, z1, sx, zx)
            y = QLinearConv(g, sx, zx, w2, sx, z0, sx, zx)
        }""",
        w1=i8(8, 3, 1, 1),
        s1=scales(8),
        z1=np.zeros(8, np.int8),
        b1=RANDOM.integers(-100, 100, 8).astype(np.int32),
        wd=i8(8, 1, 1, 1),
        w2=i8(2, 8, 1, 1),
        sx=np.float32(0.02),
        zx=np.array(0, np.uint8),
        z0=np.array(0, np.int8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (4, 3, 1, 1)
    assert cut.shape("wd") == (4, 1, 1, 1)
    assert cut.shape("w2") == (2, 4, 1, 1)
    assert cut.shape("b1") == cut.shape("s1") == cut.shape("z1") == (4,)


def test_dynamically_quantised_linear_layers() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            q, s, z = DynamicQuantizeLinear(x)
            i = MatMulInteger(q, w1, z, z1)
            f = Cast<to=1>(i)
            ss = Mul(s, s1)
            a = Mul(f, ss)
            r = Relu(a)
            y = MatMul(r, w2)
        }""",
        w1=i8(6, 8),
        z1=np.zeros(8, np.int8),
        s1=scales(8),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (6, 4)
    assert cut.shape("w2") == (4, 5)


def test_quantised_matrix_products() -> None:
    model = build(
        """(uint8[N,6] x) => (uint8[N,5] y) {
            a = QLinearMatMul(x, sx, zx, w1, s1, z1, sx, zx)
            y = QLinearMatMul(a, sx, zx, w2, sx, z0, sx, zx)
        }""",
        w1=i8(6, 8),
        s1=scales(8),
        z1=np.zeros(8, np.int8),
        w2=i8(8, 5),
        sx=np.float32(0.02),
        zx=np.array(0, np.uint8),
        z0=np.array(0, np.int8),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (6, 4)
    assert cut.shape("s1") == (4,)


@pytest.mark.parametrize("bias", [True, False])
def test_quantised_gemm(bias: bool) -> None:
    model = build(
        f"""(uint8[N,6] x) => (float[N,5] y) {{
            a = com.microsoft.QGemm<transB=1>(x, sx, zx, w1, s1, z1{", b1" if bias else ", "}, sx, zx)
            d = DequantizeLinear(a, sx, zx)
            y = MatMul(d, w2)
        }}""",
        w1=i8(8, 6),
        s1=scales(8),
        z1=np.zeros(8, np.int8),
        w2=(8, 5),
        sx=np.float32(0.02),
        zx=np.array(0, np.uint8),
        **({"b1": RANDOM.integers(-100, 100, 8).astype(np.int32)} if bias else {}),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (4, 6)
    assert cut.shape("w2") == (4, 5)


@pytest.mark.parametrize("zero", [True, False])
@pytest.mark.parametrize("flat", [True, False])
def test_matrices_of_a_few_bits_lose_output_channels(zero: bool, flat: bool) -> None:
    """Blocks of 16 along K = 40: 3 of 8 bytes each; scales one a block, zero points two in a byte."""
    used = {"z": u8(24) if flat else u8(12, 2)} if zero else {}
    model = build(
        f"""(float[N,T,40] x) => (float[N,T,5] y) {{
            a = com.microsoft.MatMulNBits<K=40, N=12, bits=4, block_size=16>(x, w, s{", z" if zero else ""})
            r = Relu(a)
            y = MatMul(r, w2)
        }}""",
        w=u8(12, 3, 8),
        s=scales(36) if flat else scales(36).reshape(12, 3),
        w2=(12, 5),
        **used,
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 40)}])
    assert cut.shape("w") == (6, 3, 8)
    assert cut.shape("w2") == (6, 5)
    assert cut.shape("s") == ((18,) if flat else (6, 3))
    assert cut.attribute("MatMulNBits", "N") == 6


@pytest.mark.parametrize("per_channel", [True, False])
def test_quantised_attention(per_channel: bool) -> None:
    """What onnxruntime makes of Attention when it quantises: heads go, and width within them."""
    n = 48 if per_channel else 1
    model = build(
        """(uint8[N,T,6] x) => (float[N,T,5] y) {
            o = com.microsoft.QAttention<num_heads=4>(x, w, b, sx, s, , zx, z)
            y = MatMul(o, wo)
        }""",
        w=i8(6, 48),
        b=(48,),
        s=scales(n),
        z=np.zeros(n, np.int8),
        wo=(16, 5),
        sx=np.float32(0.02),
        zx=np.array(7, np.uint8),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    kept = cut.shape("wo")[0]
    assert kept < 16
    assert cut.shape("w") == (6, 3 * kept)
    assert cut.shape("s") == ((3 * kept,) if per_channel else (1,))


def test_quantised_softmax_and_choice() -> None:
    """Between them channels pass: only the axis of the softmax stays whole."""
    model = build(
        """(uint8[N,3,4,4] x, bool[N,1,4,4] c) => (uint8[N,2,4,4] y) {
            a = QLinearConv(x, sx, zx, w1, sx, z0, sx, zx)
            p = com.microsoft.QLinearSoftmax<axis=3, opset=21>(a, sx, zx, sx, zx)
            m = com.microsoft.QLinearWhere(c, p, sx, zx, a, sx, zx, sx, zx)
            y = QLinearConv(m, sx, zx, w2, sx, z0, sx, zx)
        }""",
        w1=i8(8, 3, 1, 1),
        w2=i8(2, 8, 1, 1),
        sx=np.float32(0.02),
        zx=np.array(0, np.uint8),
        z0=np.array(0, np.int8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (4, 3, 1, 1)
    assert cut.shape("w2") == (2, 4, 1, 1)


def test_quantised_embeddings() -> None:
    """Cut only where cutting what a LayerNorm runs over is asked for."""
    scale, zero = "s0, s0, s0, s0, s0", "z0, z0, z0, z0, z0"
    model = build(
        f"""(int32[N,5] ids, int32[N,5] parts, int32[N,5] mask) => (float[N,5,3] y) {{
            e, m = com.microsoft.QEmbedLayerNormalization(
                ids, parts, words, places, kinds, gamma, beta, mask, {scale}, {zero})
            y = MatMul(e, w)
        }}""",
        words=u8(9, 8),
        places=u8(5, 8),
        kinds=u8(2, 8),
        gamma=u8(8),
        beta=u8(8),
        s0=np.float32(0.02),
        z0=np.array(0, np.uint8),
        w=(8, 3),
    )
    cut = assert_cut_equals_mask(model, exact=False, allow_inexact=True)
    assert cut.shape("words")[1] == cut.shape("gamma")[0] == cut.shape("w")[0] == 4


def test_quantised_elementwise_ops_of_onnxruntime() -> None:
    model = build(
        """(uint8[N,3,4,4] x) => (uint8[N,2,4,4] y) {
            a = QLinearConv(x, sx, zx, w1, sx, z0, sx, zx)
            b = QLinearConv(x, sx, zx, w2, sx, z0, sx, zx)
            s = com.microsoft.QLinearAdd(a, sx, zx, b, sx, zx, sx, zx)
            g = com.microsoft.QLinearGlobalAveragePool<channels_last=0>(s, sx, zx, sx, zx)
            m = com.microsoft.QLinearMul(s, sx, zx, g, sx, zx, sx, zx)
            l = com.microsoft.QLinearLeakyRelu<alpha=0.1>(m, sx, zx, sx, zx)
            c = com.microsoft.QLinearConcat<axis=1>(sx, zx, l, sx, zx, s, sx, zx)
            y = QLinearConv(c, sx, zx, w3, sx, z0, sx, zx)
        }""",
        w1=i8(8, 3, 1, 1),
        w2=i8(8, 3, 1, 1),
        w3=i8(2, 16, 1, 1),
        sx=np.float32(0.02),
        zx=np.array(7, np.uint8),
        z0=np.array(0, np.int8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4
    assert cut.shape("w3")[1] == 8


def test_channels_last() -> None:
    model = build(
        """(uint8[N,4,4,3] x) => (uint8[N,1,1,2] y) {
            a = com.microsoft.QLinearConv<channels_last=1>(x, sx, zx, w1, s1, z1, sx, zx)
            p = com.microsoft.QLinearAveragePool<kernel_shape=[2,2], channels_last=1>(a, sx, zx, sx, zx)
            g = com.microsoft.QLinearGlobalAveragePool<channels_last=1>(p, sx, zx, sx, zx)
            y = com.microsoft.QLinearConv<channels_last=1>(g, sx, zx, w2, sx, z0, sx, zx)
        }""",
        w1=i8(8, 3, 1, 1),
        s1=scales(8),
        z1=np.zeros(8, np.int8),
        w2=i8(2, 8, 1, 1),
        sx=np.float32(0.02),
        zx=np.array(0, np.uint8),
        z0=np.array(0, np.int8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (4, 3, 1, 1)
    assert cut.shape("w2") == (2, 4, 1, 1)


@pytest.mark.parametrize("shape", [(1,), (1, 32)])
def test_an_lstm_quantised_as_it_runs(shape: tuple[int, ...]) -> None:
    model = build(
        """(float[T,N,6] x) => (float[T,1,N,5] y) {
            h = com.microsoft.DynamicQuantizeLSTM<hidden_size=8>(x, w, r, b, , , , , s, z, s, z)
            y = MatMul(h, u)
        }""",
        w=i8(1, 6, 32),
        r=i8(1, 8, 32),
        b=(1, 64),
        s=np.full(shape, 0.01, "f4"),
        z=np.zeros(shape, np.int8),
        u=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (5, 3, 6)}])
    assert cut.shape("w") == (1, 6, 16)
    assert cut.shape("r") == (1, 4, 16)
    assert cut.shape("u") == (4, 5)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_four_bits(kind: int) -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            d = DequantizeLinear<axis=1>(q, s, z)
            a = MatMul(x, d)
            r = Relu(a)
            y = MatMul(r, w2)
        }""",
        opset=21,
        ir_version=10,
        s=scales(7),
        w2=(7, 5),
    )
    for name, array in (("q", RANDOM.integers(0, 7, (6, 7))), ("z", np.zeros(7, int))):
        tensor = helper.make_tensor(name, kind, array.shape, array.ravel().tolist())
        model.graph.initializer.append(tensor)
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("q") == (6, 4)
    assert cut.shape("z") == (4,)
