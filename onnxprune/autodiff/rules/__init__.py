"""The rules, by family. Importing this registers them all."""

from onnxprune.autodiff.rules import (
    contraction,
    convolution,
    elementwise,
    indexing,
    layout,
    normalisation,
    pooling,
    recurrent,
    reduction,
    resize,
)

__all__ = [
    "contraction",
    "convolution",
    "elementwise",
    "indexing",
    "layout",
    "normalisation",
    "pooling",
    "recurrent",
    "reduction",
    "resize",
]
