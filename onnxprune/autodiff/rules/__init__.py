"""The rules, by family. Importing this registers them all."""

from onnxprune.autodiff.rules import (
    contraction,
    contrib,
    control,
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
    spectral,
)

__all__ = [
    "contraction",
    "contrib",
    "control",
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
    "spectral",
]
