"""What onnxruntime's optimiser fuses, and others write in its domain: the ops that it was made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call

_DOMAIN = "com.microsoft"
_ACTIVATIONS: dict[str, list[str]] = {
    "HardSigmoid": ["alpha", "beta"],
    "LeakyRelu": ["alpha"],
    "Relu": [],
    "Sigmoid": [],
    "Tanh": [],
}
"""Activations that are fused, with the attributes that their parameters are; beside them Clip."""


@defined("FusedMatMul", "TransposeMatMul", domain=_DOMAIN)
def fused_matmul(call: Call) -> Sequence[Tensor]:
    """Alpha A' B', where ' swaps the last two axes or does nothing."""
    op, factors = call.op, []
    for x, letter in zip(call.inputs, "AB", strict=True):
        if call.int(f"transBatch{letter}"):
            raise call.error("transBatch is not supported")
        if call.int(f"trans{letter}") and x.rank > 1:
            x = op.Transpose(x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])
        factors.append(x)
    return [op.MatMul(*factors) * call.float("alpha", 1.0)]


@defined("FusedGemm", domain=_DOMAIN)
def fused_gemm(call: Call) -> Sequence[Tensor]:
    """Gemm and an activation."""
    y = call.op.Gemm(*call.inputs, **_others(call))
    names = [f"activation_{letter}" for letter in ("alpha", "beta", "gamma")]
    return [_activated(call, y, [call.float(n) for n in names if n in call.node.attributes])]


@defined("FusedConv", domain=_DOMAIN)
def fused_conv(call: Call) -> Sequence[Tensor]:
    """Conv, a sum and an activation."""
    y, other = call.op.Conv(*call.inputs[:3], **_others(call)), call.input(3)
    parameters = call.node.attributes.get("activation_params")
    numbers = [] if parameters is None else list(parameters.as_floats())
    return [_activated(call, y if other is None else y + other, numbers)]


def _others(call: Call) -> dict[str, Any]:
    """The attributes that are not of the activation."""
    return {
        name: attribute.value
        for name, attribute in call.node.attributes.items()
        if not name.startswith("activation")
    }


def _activated(call: Call, y: Tensor, numbers: Sequence[float]) -> Tensor:
    kind = call.str("activation")
    if not kind:
        return y
    if kind == "Clip":
        return call.op.Clip(y, *numbers)
    if kind not in _ACTIVATIONS:
        raise call.error(f"the activation {kind} is not supported")
    parameters = dict(zip(_ACTIVATIONS[kind], numbers, strict=False))
    found: Tensor = getattr(call.op, kind)(y, **parameters)
    return found


@defined("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_normalization(call: Call) -> Sequence[Tensor]:
    """Layer normalisation of x + skip + bias, which is the fourth output."""
    total = _sum(call, call.input(4))
    y = _layer_norm(call, total, call.inputs[2], call.input(3))
    return [y, *_no_statistics(call, y), total]


@defined("SkipSimplifiedLayerNormalization", domain=_DOMAIN)
def skip_simplified_layer_normalization(call: Call) -> Sequence[Tensor]:
    """The same without means."""
    total = _sum(call, call.input(3))
    y, _ = _rms_norm(call, total, call.inputs[2], 1e-12, call.x.rank - 1)
    return [y, *_no_statistics(call, y), total]


@defined("SimplifiedLayerNormalization")
@defined("SimplifiedLayerNormalization", domain=_DOMAIN)
def simplified_layer_normalization(call: Call) -> Sequence[Tensor]:
    """RMSNormalization; onnxruntime has it in ONNX's own domain, where ONNX does not know it."""
    axis = call.int("axis", -1) % call.x.rank
    return _rms_norm(call, call.x, call.inputs[1], 1e-5, axis)


@defined("EmbedLayerNormalization", domain=_DOMAIN)
def embed_layer_normalization(call: Call) -> Sequence[Tensor]:
    """Layer normalisation of the sum of what tables have for words, places and kinds, the third output."""
    if len(call.outputs) > 1 and call.outputs[1].value.uses():
        raise call.error("its mask may not be used")
    op, (ids, kinds, words, places) = call.op, call.inputs[:4]
    where, table = call.input(8), call.input(4)
    if where is None:
        where = op.Range(0, op.Squeeze(op.Slice(op.Shape(ids), [1], [2], [0])), 1)
    total = op.Gather(words, ids) + op.Gather(places, where)
    if kinds is not None and table is not None:
        total = total + op.Gather(table, kinds)
    y = _layer_norm(call, total, call.inputs[5], call.input(6))
    return [y, ids, total]


def _sum(call: Call, bias: Tensor | None) -> Tensor:
    total: Tensor = call.x + call.inputs[1]
    return total if bias is None else total + bias


def _no_statistics(call: Call, y: Tensor) -> Sequence[Tensor]:
    """What stands for means and deviations, which onnxruntime's CPU kernels do not give either."""
    if any(output.value.uses() for output in call.outputs[1:3]):
        raise call.error("its means and deviations may not be used")
    return y, y


def _layer_norm(call: Call, x: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    epsilon = call.float("epsilon", 1e-12)
    return call.op.LayerNormalization(x, scale, bias, axis=-1, epsilon=epsilon)


def _rms_norm(
    call: Call, x: Tensor, scale: Tensor, epsilon: float, axis: int
) -> tuple[Tensor, Tensor]:
    op, axes = call.op, list(range(axis, call.x.rank))
    mean = op.ReduceMean(x * x, axes, keepdims=1)
    inverse = 1.0 / op.Sqrt(mean + call.float("epsilon", epsilon))
    return x * inverse * scale, inverse


@defined("MultiHeadAttention", domain=_DOMAIN)
def multi_head_attention(call: Call) -> Sequence[Tensor]:
    """Of queries, keys and values (batch, places, heads x width), without a memory of earlier ones."""
    if len(call.outputs) > 1 or any(call.input(k) is not None for k in (4, 6, 7, 8, 9)):
        raise call.error("masks by padding and earlier keys are not supported")
    if any(call.input(k) is None or call.inputs[k].rank != 3 for k in range(3)):
        raise call.error("packed queries, keys and values are not supported")
    parts, bias = list(call.inputs[:3]), call.input(3)
    widths = [part.shape[2] for part in parts]
    if bias is not None:
        split = call.op.call("Split", bias, widths, outputs=3)
        parts = [part + each for part, each in zip(parts, split, strict=True)]
    return [_attention(call, parts, widths, call.input(5))]


@defined("Attention", domain=_DOMAIN)
def attention(call: Call) -> Sequence[Tensor]:
    """The same of the input, times the weights of all three."""
    if len(call.outputs) > 1 or any(call.input(k) is not None for k in (3, 4, 6)):
        raise call.error("masks by padding and earlier keys are not supported")
    weight, bias = call.inputs[1], call.input(2)
    widths = call.ints("qkv_hidden_sizes", [weight.shape[1] // 3] * 3)
    y = call.op.MatMul(call.x, weight)
    parts = call.op.call("Split", y if bias is None else y + bias, widths, outputs=3, axis=2)
    return [_attention(call, parts, widths, call.input(5))]


def _attention(
    call: Call, parts: Sequence[Tensor], widths: Sequence[int], bias: Tensor | None
) -> Tensor:
    if call.int("unidirectional") or call.int("do_rotary"):
        raise call.error("unidirectional and rotary attention are not supported")
    op, heads = call.op, call.int("num_heads")

    def apart(x: Tensor, width: int) -> Tensor:
        return op.Transpose(op.Reshape(x, [0, 0, heads, width // heads]), perm=[0, 2, 1, 3])

    q, k, v = (apart(x, width) for x, width in zip(parts, widths, strict=True))
    scale = call.float("scale") or 1 / math.sqrt(widths[0] // heads)
    scores = op.MatMul(q, op.Transpose(k, perm=[0, 1, 3, 2])) * scale
    shares = op.Softmax(scores if bias is None else scores + bias, axis=-1)
    y = op.Transpose(op.MatMul(shares, v), perm=[0, 2, 1, 3])
    return op.Reshape(y, [0, 0, widths[2]])
