"""The rules, by family. Importing this registers them all."""

from onnxprune.autodiff.rules import (
    contraction,
    elementwise,
)

__all__ = ["contraction", "elementwise"]
