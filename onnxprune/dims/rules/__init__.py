"""The axis rules, one file a family of ops. Importing this package fills the registry."""

from onnxprune.dims.rules import (  # noqa: F401
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
