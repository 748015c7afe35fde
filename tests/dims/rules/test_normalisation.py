from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


def test_batch_normalisation_between_convolutions() -> None:
    model = build(
        """(float[N,3,8,8] x) => (float[N,2,8,8] y) {
            a = Conv(x, w1)
            n = BatchNormalization(a, s, b, m, v)
            r = Relu(n)
            y = Conv(r, w2)
        }""",
        w1=(8, 3, 1, 1),
        s=(8,),
        b=(8,),
        m=(8,),
        v=np.linspace(0.5, 2, 8, dtype="f4"),
        w2=(2, 8, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    for name in "sbmv":
        assert cut.shape(name) == (4,)


def test_standardised_weights_lose_outputs_and_no_inputs() -> None:
    """Live statistics run over the inputs of each output."""
    model = build(
        """(float[N,3,8,8] x) => (float[N,2,8,8] y) {
            a = Conv(x, w1)
            u, mean, var = BatchNormalization <training_mode = 1> (w2, s, b, m, v)
            k = Reshape(u, shape)
            c = Conv(a, k)
            y = Conv(c, w3)
        }""",
        w1=(8, 3, 1, 1),
        w2=(1, 6, 8),
        s=(6,),
        b=np.zeros(6, "f4"),
        m=(6,),
        v=np.ones(6, "f4"),
        shape=np.array([6, -1, 1, 1]),
        w3=(2, 6, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (1, 3, 8)
    assert cut.shape("w1") == (8, 3, 1, 1)


def test_instance_normalisation() -> None:
    model = build(
        """(float[N,3,8,8] x) => (float[N,2,8,8] y) {
            a = Conv(x, w1)
            n = InstanceNormalization(a, s, b)
            y = Conv(n, w2)
        }""",
        w1=(8, 3, 1, 1),
        s=(8,),
        b=(8,),
        w2=(2, 8, 1, 1),
    )
    assert assert_cut_equals_mask(model).shape("s") == (4,)


LAYER_NORMS = {
    "LayerNormalization": (17, "n = LayerNormalization<axis=-1>(a, s, b)"),
    "RMSNormalization": (23, "n = RMSNormalization<axis=-1>(a, s)"),
    "written out": (
        17,
        """m = ReduceMean<axes=[-1]>(a)
           c = Sub(a, m)
           q = Mul(c, c)
           v = ReduceMean<axes=[-1]>(q)
           e = Add(v, eps)
           r = Sqrt(e)
           d = Div(c, r)
           n0 = Mul(d, s)
           n = Add(n0, b)""",
    ),
}


@pytest.mark.parametrize(("opset", "text"), LAYER_NORMS.values(), ids=LAYER_NORMS)
def test_a_layer_norm_is_left_alone_unless_asked(opset: int, text: str) -> None:
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,5] y) {{
            a = MatMul(x, w1)
            {text}
            h = MatMul(n, w2)
            r2 = Relu(h)
            y = MatMul(r2, w3)
        }}""",
        opset=opset,
        ir_version=11 if opset > 20 else 9,
        w1=(6, 8),
        s=(8,),
        b=(8,),
        w2=(8, 12),
        w3=(12, 5),
        eps=np.float32(1e-5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 6)}])
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("w2") == (8, 6)
    more = assert_cut_equals_mask(model, exact=False, allow_inexact=True)
    assert more.shape("w1") == (6, 4)
    assert more.shape("w2") == (4, 6)


def test_group_normalisation_loses_whole_groups() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            n = GroupNormalization<num_groups=4>(a, s, b)
            y = Conv(n, w2)
        }""",
        opset=21,
        w1=(16, 3, 1, 1),
        s=(16,),
        b=(16,),
        w2=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 8
    assert cut.attribute("GroupNormalization", "num_groups") == 2


def test_group_normalisation_written_out() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            r = Reshape(a, groups)
            i = InstanceNormalization(r, ones, zeros)
            shape = Shape(a)
            b = Reshape(i, shape)
            n0 = Mul(b, s)
            n = Add(n0, t)
            y = Conv(n, w2)
        }""",
        w1=(16, 3, 1, 1),
        groups=np.array([0, 4, -1]),
        ones=np.ones(4, "f4"),
        zeros=np.zeros(4, "f4"),
        s=(16, 1, 1),
        t=(16, 1, 1),
        w2=(2, 16, 1, 1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 4, 4)}])
    assert cut.shape("w1")[0] == 8
    assert cut.shape("ones") == (2,)


def test_skip_layer_normalisation() -> None:
    model = build(
        """(float[N,T,8] x) => (float[N,T,8] y, float[N,T,8] z) {
            a = MatMul(x, w1)
            r = com.microsoft.BiasGelu(a, b1)
            h = MatMul(r, w2)
            y, m, i, z = com.microsoft.SkipLayerNormalization(x, h, s, t, b2)
        }""",
        w1=(8, 16),
        b1=(16,),
        w2=(16, 8),
        s=(8,),
        t=(8,),
        b2=(8,),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 8)}])
    assert cut.shape("w1") == (8, 8)
    assert cut.shape("b1") == (8,)


def test_softmax_stays_along_its_axis() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            s = Softmax(a)
            h = MatMul(s, w2)
            r = Relu(h)
            y = MatMul(r, w3)
        }""",
        w1=(6, 8),
        w2=(8, 10),
        w3=(10, 5),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("w3") == (5, 5)
    assert "Softmax" in str([info.dim.frozen for info in cut.tracing.dims])
