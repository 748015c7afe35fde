"""Ops of onnxruntime's own domain."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from adjoint import check_op, one_node, run

from onnxprune.autodiff import NoGradientError, SquaredError, gradient

MS = "com.microsoft"
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("turned", ["A", "B", "AB", ""])
def test_fused_matmul(turned: str) -> None:
    a, b = normal(2, 3, 4), normal(2, 4, 5)
    factors = [x.swapaxes(1, 2) if k in turned else x for k, x in zip("AB", (a, b), strict=True)]
    switches = {f"trans{letter}": 1 for letter in turned}
    check_op("FusedMatMul", factors, domain=MS, alpha=0.5, **switches)


ACTIVATIONS = {
    "Relu": "Relu(a)",
    "Tanh": "Tanh(a)",
    "Sigmoid": "Sigmoid(a)",
    "LeakyRelu": "LeakyRelu<alpha=0.3>(a)",
    "HardSigmoid": "HardSigmoid<alpha=0.1, beta=0.4>(a)",
    "Clip": "Clip(a, low, high)",
}
PARAMETERS: dict[str, list[float]] = {
    "LeakyRelu": [0.3],
    "HardSigmoid": [0.1, 0.4],
    "Clip": [-0.5, 0.7],
}


def gradients(text: str, names: Sequence[str]) -> list[np.ndarray]:
    """Of sum y^2 by some inputs: kinks, which differences cross, are the same in two models."""
    model = ir.from_proto(onnx.parser.parse_model(text))
    random = np.random.default_rng(1)
    feeds = {
        value.name or "": random.normal(size=value.shape.numpy()).astype(np.float32)
        for value in model.graph.inputs
        if value.shape is not None
    }
    made = gradient(model, SquaredError("y", "zero", "sum"), names, feeds=feeds)
    shape = run(model, feeds, ["y"])[0].shape
    return run(
        made,
        {**feeds, "zero": np.zeros(shape, np.float32)},
        [v.name or "" for v in made.graph.outputs],
    )


def assert_same(inputs: str, plain: str, fused: str, names: Sequence[str]) -> None:
    """Whether loss and gradients are."""
    head = '<ir_version: 10, opset_import: ["": 18, "com.microsoft": 1]>'
    constants = "<float low = {-0.5}, float high = {0.7}>"
    texts = (f"{head} m ({inputs}) => (y) {constants} {{ {nodes} }}" for nodes in (plain, fused))
    for one, other in zip(*(gradients(text, names) for text in texts), strict=True):
        assert np.abs(one).max() > 0
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("other", [True, False])
def test_fused_conv(kind: str, other: bool) -> None:
    numbers = f", activation_params={PARAMETERS[kind]}" if kind in PARAMETERS else ""
    last = ACTIVATIONS[kind]
    assert_same(
        "float[2,3,5,5] x, float[4,3,3,3] w, float[4] b, float[2,4,5,5] z",
        f"c = Conv<pads=[1,1,1,1]>(x, w, b) a = {'Add(c, z)' if other else 'Identity(c)'} y = {last}",
        f'y = com.microsoft.FusedConv<pads=[1,1,1,1], activation="{kind}"{numbers}>'
        f"(x, w, b{', z' if other else ''})",
        ["x", "w", "b", *(["z"] if other else [])],
    )


@pytest.mark.parametrize("kind", ["Relu", "LeakyRelu", "Tanh"])
def test_fused_gemm(kind: str) -> None:
    numbers = ", activation_alpha=0.3" if kind == "LeakyRelu" else ""
    assert_same(
        "float[3,4] x, float[5,4] w, float[5] b",
        f"a = Gemm<transB=1, alpha=0.7>(x, w, b) y = {ACTIVATIONS[kind]}",
        f'y = com.microsoft.FusedGemm<transB=1, alpha=0.7, activation="{kind}"{numbers}>(x, w, b)',
        ["x", "w", "b"],
    )


@pytest.mark.parametrize("outputs", [1, 4])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("beta", [True, False])
def test_skip_layer_normalization(outputs: int, bias: bool, beta: bool) -> None:
    """The sum is an output that later layers read."""
    vectors = [normal(6) if there else None for there in (beta, bias)]
    inputs = [normal(2, 3, 6), normal(2, 3, 6), normal(6), *vectors]
    check_op("SkipLayerNormalization", inputs, outputs, domain=MS, unused=[1, 2], epsilon=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_skip_simplified_layer_normalization(bias: bool) -> None:
    inputs = [normal(2, 3, 6), normal(2, 3, 6), normal(6), *([normal(6)] if bias else [])]
    check_op("SkipSimplifiedLayerNormalization", inputs, 4, domain=MS, unused=[1, 2], epsilon=1e-3)


def test_one_after_the_other() -> None:
    """What reads another one's sum is written out with it."""
    skip = "com.microsoft.SkipSimplifiedLayerNormalization<epsilon=0.001>"
    norm = "SimplifiedLayerNormalization<epsilon=0.001, axis=-1>"
    assert_same(
        "float[2,3,6] x, float[2,3,6] z, float[6] w",
        f"s = Add(x, z) a = {norm}(s, w) t = Add(a, s) y = {norm}(t, w)",
        f"a, m, i, s = {skip}(x, z, w) y = {skip}(a, s, w)",
        ["x", "z", "w"],
    )


def test_simplified_layer_normalization() -> None:
    """Of ONNX's own domain, where only onnxruntime knows it."""
    check_op("SimplifiedLayerNormalization", [normal(2, 3, 6), normal(6)], axis=-1, epsilon=1e-3)


@pytest.mark.parametrize("kinds", [True, False])
@pytest.mark.parametrize("places", [True, False])
def test_embed_layer_normalization(kinds: bool, places: bool) -> None:
    random = np.random.default_rng(0)
    ids = random.integers(0, 9, (2, 5)).astype(np.int32)
    parts = random.integers(0, 2, (2, 5)).astype(np.int32) if kinds else None
    where = random.integers(0, 7, (2, 5)).astype(np.int32) if places else None
    tables = [normal(9, 6), normal(7, 6), normal(2, 6) if kinds else None]
    inputs = [ids, parts, *tables, normal(6), normal(6), None, where]
    check_op("EmbedLayerNormalization", inputs, 3, domain=MS, given=["y0", "y2"], epsilon=1e-3)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shift", [True, False])
def test_multi_head_attention(bias: bool, shift: bool) -> None:
    inputs = [normal(2, 4, 6), normal(2, 5, 6), normal(2, 5, 8)]
    more = [normal(20) if bias else None, None, normal(2, 2, 4, 5) if shift else None]
    check_op("MultiHeadAttention", [*inputs, *more], domain=MS, num_heads=2)


@pytest.mark.parametrize("sizes", [[], [6, 6, 10]])
def test_attention(sizes: list[int]) -> None:
    widths = {"qkv_hidden_sizes": sizes} if sizes else {}
    width = sum(sizes) or 24
    inputs = [normal(2, 4, 5), normal(5, width), normal(width)]
    check_op("Attention", inputs, domain=MS, num_heads=2, **widths)


def test_what_is_not_supported_is_said() -> None:
    inputs = [normal(2, 4, 6), normal(2, 5, 6), normal(2, 5, 6), None, np.array([5, 3], np.int32)]
    model, feeds = one_node("MultiHeadAttention", inputs, domain=MS, num_heads=2)
    with pytest.raises(NoGradientError, match="masks by padding"):
        gradient(model, "y0", ["x0"], feeds=feeds)
    inputs = [normal(2, 4, 5), normal(5, 24), normal(24)]
    model, feeds = one_node("Attention", inputs, domain=MS, num_heads=2, unidirectional=1)
    with pytest.raises(NoGradientError, match="unidirectional"):
        gradient(model, "y0", ["x0"], feeds=feeds)
