"""Prunes exported ONNX models with onnxruntime alone: no training framework.

    import onnxprune
    report = onnxprune.prune("in.onnx", "out.onnx", sparsity=0.5)

The names below are imported when first used, so that `import onnxprune` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxprune.api import finetune, inspect, prune, validate
    from onnxprune.options import PruneOptions
    from onnxprune.report import Report

__all__ = ["PruneOptions", "Report", "__version__", "finetune", "inspect", "prune", "validate"]

__version__ = "0.1.0"

_HOMES = {
    "PruneOptions": "onnxprune.options",
    "Report": "onnxprune.report",
    "finetune": "onnxprune.api",
    "inspect": "onnxprune.api",
    "prune": "onnxprune.api",
    "validate": "onnxprune.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
