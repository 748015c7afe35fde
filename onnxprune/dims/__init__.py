"""Dims: which indices of which tensors live and die together, and cutting them.

`trace` walks a model and lets every op's rule state which axes are equal (`rules/`); `solver` unifies; `cut` slices.
"""

from onnxprune.dims.axis import Axis, Dim, Keep, Product, Sum, keep_mask, leaves, positions, size
from onnxprune.dims.cut import cut
from onnxprune.dims.registry import axes, registered, rule_for, specs
from onnxprune.dims.trace import DimInfo, Tracing, Use, by_weight, trace

__all__ = [
    "Axis",
    "Dim",
    "DimInfo",
    "Keep",
    "Product",
    "Sum",
    "Tracing",
    "Use",
    "axes",
    "by_weight",
    "cut",
    "keep_mask",
    "leaves",
    "positions",
    "registered",
    "rule_for",
    "size",
    "specs",
    "trace",
]
