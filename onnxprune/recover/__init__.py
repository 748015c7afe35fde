"""Repairing what cutting has damaged, without gradients."""

from onnxprune.recover.bias import correct_biases
from onnxprune.recover.compensate import compensate
from onnxprune.recover.lstsq import Refitted, fit, refit

__all__ = ["Refitted", "compensate", "correct_biases", "fit", "refit"]
