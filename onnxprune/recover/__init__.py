"""Repairing what cutting has damaged, without gradients."""

from onnxprune.recover.lstsq import Refitted, refit

__all__ = ["Refitted", "refit"]
