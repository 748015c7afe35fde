"""Criteria: how much each element of a weight tensor matters."""

from __future__ import annotations

from onnxprune.scores import weight_based as _weight_based  # noqa: F401  registers its criteria
from onnxprune.scores import whole as _whole  # noqa: F401
from onnxprune.scores import with_activations as _with_activations  # noqa: F401
from onnxprune.scores import with_gradients as _with_gradients  # noqa: F401
from onnxprune.scores.criterion import (
    Context,
    Criterion,
    Ranked,
    channel_criterion,
    criterion,
    criterion_names,
    get_criterion,
)

__all__ = [
    "Context",
    "Criterion",
    "Ranked",
    "channel_criterion",
    "criterion",
    "criterion_names",
    "get_criterion",
]
