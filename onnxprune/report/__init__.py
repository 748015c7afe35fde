"""Reports: what was done and why, and what onnxruntime measured before and after."""

from __future__ import annotations

from onnxprune.report.data import (
    Check,
    Cost,
    DimRow,
    LayerRow,
    Report,
    StepRow,
    TensorRow,
    TrialRow,
)
from onnxprune.report.terminal import render
from onnxprune.report.write import pending_json, write_json, write_report

__all__ = [
    "Check",
    "Cost",
    "DimRow",
    "LayerRow",
    "Report",
    "StepRow",
    "TensorRow",
    "TrialRow",
    "pending_json",
    "render",
    "write_json",
    "write_report",
]
