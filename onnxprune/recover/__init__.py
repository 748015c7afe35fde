"""Repairing what cutting has damaged, without gradients."""

from onnxprune.recover.bias import correct_biases
from onnxprune.recover.lstsq import Refitted, refit

__all__ = ["Refitted", "correct_biases", "refit"]
