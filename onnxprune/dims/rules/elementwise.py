"""Ops that work element by element: the output's axes are the inputs'."""

from __future__ import annotations

from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes

UNARY = (
    "Abs Acos Acosh Affine Asin Asinh Atan Atanh BitwiseNot Cast CastLike Ceil Celu Clip Cos Cosh Dropout Elu Erf Exp "
    "Floor Gelu HardSigmoid HardSwish Identity IsInf IsNaN LeakyRelu Log LpNormalization Mish Neg Not "
    "ParametricSoftplus Reciprocal Relu Round ScaledTanh Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Sqrt "
    "Swish Tan Tanh ThresholdedRelu"
)
BROADCAST = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or PRelu Pow Sub Sum SwiGLU Where Xor"
)


@axes(*UNARY.split())
@axes("QuickGelu", "Gelu", "QLinearLeakyRelu", "QLinearSigmoid", domain=CONTRIB)
def unary(node: Context) -> None:
    """Every output (Dropout has a mask as its second) has the axes of the first input; zeros add nothing to a norm."""
    for i in range(node.output_count):
        node.set_out(node.x(0), i)


@axes(*BROADCAST.split())
@axes("BiasGelu", "FastGelu", "BiasAdd", domain=CONTRIB)
def broadcast(node: Context) -> None:
    """Axes meet from the right; size 1 says nothing."""
    node.broadcast(range(node.input_count))
