"""Repairing what cutting has damaged, without gradients."""

from onnxprune.recover.bias import correct_biases
from onnxprune.recover.compensate import compensate
from onnxprune.recover.lstsq import Refitted, fit, refit
from onnxprune.recover.original import Original
from onnxprune.recover.sparse import Fraction, Pattern
from onnxprune.recover.zeros import compensate_zeros

__all__ = [
    "Fraction",
    "Original",
    "Pattern",
    "Refitted",
    "compensate",
    "compensate_zeros",
    "correct_biases",
    "fit",
    "refit",
]
