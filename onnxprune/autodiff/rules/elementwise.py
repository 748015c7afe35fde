"""Functions of one number at a time: y = f(x), dx = f'(x) dy.

Those of several numbers broadcast; the driver sums their gradients down. At a kink the derivative
is the one PyTorch takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, no_gradient, vjp

no_gradient("Ceil", "Floor", "Round", "Sign", "IsNaN", "IsInf", "Not", "And", "Or", "Xor")
no_gradient("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "BitShift")
no_gradient("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitCast")

_DERIVATIVES: dict[str, Callable[[Call], Tensor]] = {
    "Abs": lambda c: c.op.Sign(c.x),
    "Acos": lambda c: -1.0 / c.op.Sqrt(1.0 - c.x * c.x),
    "Acosh": lambda c: 1.0 / c.op.Sqrt(c.x * c.x - 1.0),
    "Asin": lambda c: 1.0 / c.op.Sqrt(1.0 - c.x * c.x),
    "Asinh": lambda c: 1.0 / c.op.Sqrt(c.x * c.x + 1.0),
    "Atan": lambda c: 1.0 / (c.x * c.x + 1.0),
    "Atanh": lambda c: 1.0 / (1.0 - c.x * c.x),
    "Celu": lambda c: c.op.Exp(c.op.Min(c.x / c.float("alpha", 1.0), 0.0)),
    "Cos": lambda c: -c.op.Sin(c.x),
    "Cosh": lambda c: c.op.Sinh(c.x),
    "Elu": lambda c: c.op.where(c.x > 0.0, _one(c.x), c.y + c.float("alpha", 1.0)),
    "Erf": lambda c: c.op.Exp(-(c.x * c.x)) * (2.0 / math.sqrt(math.pi)),
    "Exp": lambda c: c.y,
    "HardSigmoid": lambda c: _mask(c, c.y, 0.0, 1.0) * c.float("alpha", 0.2),
    "HardSwish": lambda c: (
        _mask(c, c.x, -3.0, 3.0) * (c.x / 3.0 + 0.5) + c.op.cast(c.x >= 3.0, c.x.dtype)
    ),
    "LeakyRelu": lambda c: c.op.where(c.x > 0.0, _one(c.x), c.float("alpha", 0.01)),
    "Log": lambda c: 1.0 / c.x,
    "Mish": lambda c: _mish(c, c.op.Tanh(c.op.Softplus(c.x))),
    "Neg": lambda c: -_one(c.x),
    "Reciprocal": lambda c: -(c.y * c.y),
    "Selu": lambda c: c.op.where(
        c.x > 0.0, _one(c.x) * _selu(c)[1], c.y + _selu(c)[0] * _selu(c)[1]
    ),
    "Shrink": lambda c: c.op.cast(c.op.Abs(c.x) > c.float("lambd", 0.5), c.x.dtype),
    "Sigmoid": lambda c: c.y * (1.0 - c.y),
    "Sin": lambda c: c.op.Cos(c.x),
    "Sinh": lambda c: c.op.Cosh(c.x),
    "Softplus": lambda c: c.op.Sigmoid(c.x),
    "Softsign": lambda c: (1.0 - c.op.Abs(c.y)) * (1.0 - c.op.Abs(c.y)),
    "Sqrt": lambda c: 0.5 / c.y,
    "Swish": lambda c: swish(c, c.float("alpha", 1.0)),
    "Tan": lambda c: c.y * c.y + 1.0,
    "Tanh": lambda c: 1.0 - c.y * c.y,
    "ThresholdedRelu": lambda c: c.op.cast(c.x > c.float("alpha", 1.0), c.x.dtype),
}


@vjp(*_DERIVATIVES)
def unary(call: Call, dy: Tensor) -> Gradients:
    """The ops of the table above."""
    return (dy * _DERIVATIVES[call.node.op_type](call),)


@vjp("Relu")
def relu(call: Call, dy: Tensor) -> Gradients:
    """What passed."""
    return (dy * _positive(call.y),)


@vjp("Gelu")
def gelu(call: Call, dy: Tensor) -> Gradients:
    """Hendrycks and Gimpel 2016, arXiv:1606.08415: x Phi(x), exact or by tanh."""
    tanh = call.str("approximate", "none") == "tanh"
    return (dy * (gelu_tanh(call, call.x) if tanh else gelu_exact(call, call.x)),)


def gelu_exact(call: Call, x: Tensor) -> Tensor:
    """Phi(x) + x phi(x)."""
    phi = call.op.Exp(x * x * -0.5) * (1.0 / math.sqrt(2.0 * math.pi))
    return call.op.Erf(x * math.sqrt(0.5)) * 0.5 + 0.5 + x * phi


def gelu_tanh(call: Call, x: Tensor) -> Tensor:
    """The derivative of x/2 (1 + tanh u) where u = sqrt(2/pi) (x + 0.044715 x^3)."""
    c, x2 = math.sqrt(2.0 / math.pi), x * x
    tanh = call.op.Tanh(x * (x2 * (0.044715 * c) + c))
    du = x2 * (3.0 * 0.044715 * c) + c
    return (tanh + 1.0) * 0.5 + x * (1.0 - tanh * tanh) * du * 0.5


def swish(call: Call, alpha: float) -> Tensor:
    """The derivative of x sigmoid(alpha x)."""
    s = call.op.Sigmoid(call.x * alpha)
    return s + call.x * s * (1.0 - s) * alpha


def _mish(call: Call, tanh: Tensor) -> Tensor:
    return tanh + call.x * call.op.Sigmoid(call.x) * (1.0 - tanh * tanh)


def _selu(call: Call) -> tuple[float, float]:
    alpha, gamma = 1.67326319217681884765625, 1.05070102214813232421875
    return call.float("alpha", alpha), call.float("gamma", gamma)


def _one(x: Tensor) -> Tensor:
    return x.ops.constant(np.ones(()), x.dtype)


def _positive(x: Tensor) -> Tensor:
    """1 where x > 0, else 0: a slope as steep as a jump is one pass, a comparison and its cast, on one thread, two."""
    if x.dtype == ir.DataType.FLOAT:
        return x.ops.HardSigmoid(x, alpha=2.0**100, beta=0.0)
    return x.ops.cast(x > 0.0, x.dtype)


def _mask(call: Call, x: Tensor, low: float, high: float) -> Tensor:
    """1 where low < x < high, else 0."""
    return call.op.cast(call.op.And(x > low, x < high), x.dtype)


@vjp("Identity", "Cast", "CastLike")
def identity(call: Call, dy: Tensor) -> Gradients:
    """A gradient of the input's type; integers that stand for real numbers have real gradients."""
    dx = call.op.cast(dy, call.x.dtype) if call.x.dtype.is_floating_point() else dy
    return (dx, None)[: len(call.inputs)]


@vjp("Dropout")
def dropout(call: Call, dy: Tensor, _: Tensor | None = None) -> Gradients:
    """At inference the identity; in training mode the kept elements pass, scaled."""
    training = call.input(2)
    if training is None or not bool(call.constant(2)):
        return (dy, None, None)[: len(call.inputs)]
    if len(call.node.outputs) < 2:
        call.node.resize_outputs(2)
        call.node.outputs[1].name = f"{call.y.value.name}.mask"
        call.node.outputs[1].dtype = ir.DataType.BOOL
    mask = call.op.cast(Tensor(call.node.outputs[1], call.op), dy.dtype)
    ratio = call.input(1)
    kept = 0.5 if ratio is None else 1.0 - call.op.cast(ratio, dy.dtype)
    return (dy * mask / kept, None, None)[: len(call.inputs)]


@vjp("Clip")
def clip(call: Call, dy: Tensor) -> Gradients:
    """Elements outside hand their gradient to the bound that they hit.

    Where no bound wants it, what lies within is told from the result, so that x need not be kept.
    """
    op, (low, high) = call.op, (call.input(1), call.input(2))
    if not any(call.wanted[1:]):
        above = None if low is None else call.y > low
        inside = above if high is None else call.y < high
        if above is not None and high is not None:
            inside = op.And(above, inside)
        dx = dy if inside is None else dy * op.cast(inside, dy.dtype)
        return (dx, None, None)[: len(call.inputs)]
    raised = call.x if low is None else op.Max(call.x, low)
    over = None if high is None else op.cast(raised > high, dy.dtype)
    inside = dy if over is None else dy * (1.0 - over)  # an upper bound wins over a lower one
    under = None if low is None else op.cast(call.x < low, dy.dtype)
    dx = inside if under is None else inside * (1.0 - under)
    return (
        dx,
        None if under is None else op.ReduceSum(inside * under, keepdims=0),
        None if over is None else op.ReduceSum(dy * over, keepdims=0),
    )[: len(call.inputs)]


@vjp("Add", broadcast=True)
def add(call: Call, dy: Tensor) -> Gradients:
    """d(a + b)."""
    return dy, dy


@vjp("Sub", broadcast=True)
def sub(call: Call, dy: Tensor) -> Gradients:
    """d(a - b)."""
    return dy, -dy


@vjp("Mul", broadcast=True)
def mul(call: Call, dy: Tensor) -> Gradients:
    """d(a b)."""
    a, b = call.inputs
    return dy * b, dy * a


@vjp("Div", broadcast=True)
def div(call: Call, dy: Tensor) -> Gradients:
    """d(a / b)."""
    _, b = call.inputs
    da = dy / b
    return da, -(da * call.y)


@vjp("Pow", broadcast=True)
def power(call: Call, dy: Tensor) -> Gradients:
    """B a^(b-1) and y log a; where a is 0 or less the second is taken as 0."""
    a, b = call.inputs
    exponent = call.op.cast(b, a.dtype)
    one_less = call.op.Pow(a, exponent - 1.0)
    da = dy * exponent * call.op.where(call.op.Equal(exponent, 0.0), exponent, one_less)
    if not call.wanted[1]:
        return da, None
    positive = a > 0.0
    log = call.op.Log(call.op.where(positive, a, 1.0))
    return da, call.op.cast(dy * call.y * log, b.dtype)


@vjp("Mod", broadcast=True)
def mod(call: Call, dy: Tensor) -> Gradients:
    """A - b trunc(a / b), that of C's fmod: floating-point Mod has no other."""
    a, b = call.inputs
    quotient = (a - call.y) / b  # whole, but for rounding
    return dy, -(dy * call.op.Round(quotient))


@vjp("Max", "Min", broadcast=True)
def extremum(call: Call, dy: Tensor) -> Gradients:
    """To the inputs that attain it, in equal shares."""
    chosen = [call.op.cast(call.op.Equal(x, call.y), dy.dtype) for x in call.inputs]
    count = chosen[0] if len(chosen) == 1 else call.op.Sum(*chosen)
    share = dy / count
    return [share * mask for mask in chosen]


@vjp("Sum", broadcast=True)
def sum_(call: Call, dy: Tensor) -> Gradients:
    """The same to every input."""
    return [dy] * len(call.inputs)


@vjp("Mean", broadcast=True)
def mean(call: Call, dy: Tensor) -> Gradients:
    """An equal share to every input."""
    return [dy / float(len(call.inputs))] * len(call.inputs)


@vjp("PRelu", broadcast=True)
def prelu(call: Call, dy: Tensor) -> Gradients:
    """The slope holds below zero."""
    x, slope = call.inputs
    below = call.op.Min(x, 0.0)
    return call.op.where(x > 0.0, dy, dy * slope), dy * below


@vjp("Where", broadcast=True)
def where(call: Call, dy: Tensor) -> Gradients:
    """To the side that was taken."""
    condition = call.inputs[0]
    zero = call.op.constant(np.zeros(()), dy.dtype)
    return None, call.op.where(condition, dy, zero), call.op.where(condition, zero, dy)
