"""Ops of onnxruntime's own domain, as its optimiser and exporters write them."""

from __future__ import annotations

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.elementwise import gelu_exact, gelu_tanh

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
