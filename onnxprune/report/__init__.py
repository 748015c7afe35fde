"""Reports: what was done and why, and what onnxruntime measured before and after."""

from __future__ import annotations

from onnxprune.report.data import Check, Cost, DimRow, Report, StepRow, TensorRow
from onnxprune.report.terminal import render
from onnxprune.report.write import write_json

__all__ = ["Check", "Cost", "DimRow", "Report", "StepRow", "TensorRow", "render", "write_json"]
