"""Ops of onnxruntime's own domain, as its optimiser and exporters write them."""

from __future__ import annotations

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.elementwise import gelu_exact, gelu_tanh
from onnxprune.autodiff.rules.normalisation import layer_norm_gradient

_DOMAIN = "com.microsoft"


@vjp("Gelu", domain=_DOMAIN)
def gelu(call: Call, dy: Tensor) -> Gradients:
    """The exact form."""
    return (dy * gelu_exact(call, call.x),)


@vjp("BiasGelu", domain=_DOMAIN)
def bias_gelu(call: Call, dy: Tensor) -> Gradients:
    """The exact form of x + b."""
    x, bias = call.inputs
    dx = dy * gelu_exact(call, x + bias)
    return dx, call.op.unbroadcast(dx, call.y, bias)


@vjp("FastGelu", domain=_DOMAIN)
def fast_gelu(call: Call, dy: Tensor) -> Gradients:
    """The tanh form of x, or of x + b."""
    bias = call.input(1)
    if bias is None:
        return (dy * gelu_tanh(call, call.x), None)[: len(call.inputs)]
    dx = dy * gelu_tanh(call, call.x + bias)
    return dx, call.op.unbroadcast(dx, call.y, bias)


@vjp("QuickGelu", domain=_DOMAIN)
def quick_gelu(call: Call, dy: Tensor) -> Gradients:
    """The form x sigmoid(alpha x)."""
    alpha = call.float("alpha", 1.702)
    s = call.op.Sigmoid(call.x * alpha)
    return (dy * (s + call.x * s * (1.0 - s) * alpha),)


@vjp("SkipLayerNormalization", domain=_DOMAIN)
def skip_layer_normalization(call: Call, dy: Tensor, *more: Tensor | None) -> Gradients:
    """Layer normalisation of x + skip + bias; the sum may be an output too."""
    if any(gradient is not None for gradient in more):
        raise call.error("only its first output may lead to the loss")
    op, (x, skip, scale) = call.op, call.inputs[:3]
    beta, bias = call.input(3), call.input(4)
    total = x + skip if bias is None else x + skip + bias
    axes = [x.rank - 1]
    dx, normal = layer_norm_gradient(op, dy * scale, total, axes, call.float("epsilon", 1e-12))
    return (
        dx,
        op.unbroadcast(dx, call.y, skip),
        op.unbroadcast(dy * normal, call.y, scale),
        None if beta is None else op.unbroadcast(dy, call.y, beta),
        None if bias is None else op.unbroadcast(dx, call.y, bias),
    )[: len(call.inputs)]
