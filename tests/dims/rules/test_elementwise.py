from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


@pytest.mark.parametrize(
    "text",
    [
        "HardSwish(a)",
        "LeakyRelu(a)",
        "Elu(a)",
        "Softplus(a)",
        "PRelu(a, slope)",
        "Where(flags, a, other)",
        "Max(a, other, slope)",
        "Mul(other, a)",
        "Pow(a, two)",
        "Div(a, positive)",
        "com.microsoft.Gelu(a)",
        "com.microsoft.QuickGelu(a)",
        "com.microsoft.BiasGelu(a, b)",
        "com.microsoft.FastGelu(a, b)",
        "Cast<to=1>(a)",
    ],
)
def test_channels_pass(text: str) -> None:
    used = {
        "slope": (8,),
        "flags": np.arange(8) % 2 == 0,
        "other": (8,),
        "two": np.float32(2),
        "positive": np.linspace(1, 2, 8, dtype="f4"),
        "b": (8,),
    }
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,5] y) {{
            a = MatMul(x, w1)
            h = {text}
            y = MatMul(h, w2)
        }}""",
        w1=(6, 8),
        w2=(8, 5),
        **{
            name: value
            for name, value in used.items()
            if name in text.partition("(")[2].strip(")").split(", ")
        },
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 6)}])
    assert cut.shape("w1") == (6, 4)
    for name in set(used) - {"two"}:
        if name in text.partition("(")[2].strip(")").split(", "):
            assert cut.shape(name) == (4,)


def test_operands_of_size_1_broadcast() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            m = Mul(a, one)
            s = Add(m, all)
            y = Conv(s, w2)
        }""",
        w1=(8, 3, 1, 1),
        one=(1, 1, 1),
        all=(1, 8, 1, 1),
        w2=(2, 8, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("one") == (1, 1, 1)
    assert cut.shape("all") == (1, 4, 1, 1)


def test_dropout_and_its_mask() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            d, mask = Dropout(a)
            y = MatMul(d, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
    )
    assert assert_cut_equals_mask(model).shape("w2") == (4, 5)


def test_fused_convolution_with_a_summand() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            f = com.microsoft.FusedConv<activation="Relu">(a, w2, b2, a)
            y = Conv(f, w3)
        }""",
        w1=(8, 3, 1, 1),
        w2=(8, 8, 1, 1),
        b2=(8,),
        w3=(2, 8, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (4, 4, 1, 1)


def test_fused_products() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = com.microsoft.FusedGemm<activation="Relu", transB=1>(x, w1, b1)
            y = com.microsoft.FusedMatMul<transB=1, alpha=0.5>(a, w2)
        }""",
        w1=(8, 6),
        b1=(8,),
        w2=(5, 8),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (4, 6)
    assert cut.shape("w2") == (5, 4)


def test_what_feeds_an_op_without_a_rule_is_frozen_and_says_so() -> None:
    model = build(
        """(float[N,1,6] x) => (float[N,1,8] y) {
            h = MatMul(x, w0)
            r = Relu(h)
            a = MatMul(r, w1)
            y = com.microsoft.ExpandDims(a, axis)
        }""",
        w0=(6, 10),
        w1=(10, 8),
        axis=np.array(0, np.int32),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (5, 8)
    assert "no rule for com.microsoft::ExpandDims" in [d.dim.frozen for d in cut.tracing.dims]
