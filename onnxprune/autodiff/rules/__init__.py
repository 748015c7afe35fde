"""The rules, by family. Importing this registers them all."""

from onnxprune.autodiff.rules import (
    contraction,
    contrib,
    convolution,
    elementwise,
    indexing,
    layout,
    normalisation,
    pooling,
    quantised,
    recurrent,
    reduction,
    resize,
    sampling,
)

__all__ = [
    "contraction",
    "contrib",
    "convolution",
    "elementwise",
    "indexing",
    "layout",
    "normalisation",
    "pooling",
    "quantised",
    "recurrent",
    "reduction",
    "resize",
    "sampling",
]
