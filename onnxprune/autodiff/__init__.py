"""Gradients of ONNX models as ONNX models: a reverse-mode differentiation compiler."""

from onnxprune.autodiff import rules
from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.driver import gradient
from onnxprune.autodiff.losses import (
    CrossEntropy,
    Distillation,
    Loss,
    Output,
    SquaredError,
    Weighted,
)
from onnxprune.autodiff.registry import (
    Call,
    Gradients,
    NoGradientError,
    no_gradient,
    registered,
    vjp,
)

__all__ = [
    "Call",
    "CrossEntropy",
    "Distillation",
    "Gradients",
    "Loss",
    "NoGradientError",
    "Ops",
    "Output",
    "SquaredError",
    "Tensor",
    "Weighted",
    "gradient",
    "no_gradient",
    "registered",
    "rules",
    "vjp",
]
