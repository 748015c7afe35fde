"""The axis rules, one file a family of ops. Importing this package fills the registry."""

from onnxprune.dims.rules import (
    attention,
    contraction,
    control,
    elementwise,
    frozen,
    indexing,
    layout,
    normalisation,
    pooling,
    quantised,
    recurrent,
    reduction,
)

__all__ = [
    "attention",
    "contraction",
    "control",
    "elementwise",
    "frozen",
    "indexing",
    "layout",
    "normalisation",
    "pooling",
    "quantised",
    "recurrent",
    "reduction",
]
