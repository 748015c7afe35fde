"""Reductions: what passes, and over what a zero is no neutral element."""

from __future__ import annotations

import numpy as np

from onnxprune.dims.axis import Axis
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes


@axes("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
def reduce_exact(node: Context) -> None:
    """Zeros add nothing."""
    _reduce(node)


@axes("ReduceMean", "ReduceMax", "ReduceMin", "ReduceLogSum", "ReduceLogSumExp")
def reduce_inexact(node: Context) -> None:
    """A mean counts zeros, a maximum sees them."""
    for axis in _reduce(node):
        node.inexact(axis)


@axes("ReduceProd")
def reduce_product(node: Context) -> None:
    """One zero is all zero."""
    for axis in _reduce(node):
        node.freeze(axis)


def _reduce(node: Context) -> list[Axis]:
    """States the output's axes; returns those reduced."""
    x = node.x(0)
    over = node.const(1) if node.has(1) else np.array(node.attr("axes", []), np.int64)
    if over is None:
        node.freeze_all(f"{node.op} over axes that are not fixed")
        return []
    if not len(over) and not node.attr("noop_with_empty_axes", 0):
        over = np.arange(len(x))
    which = {int(k) % len(x) for k in over}
    keepdims = node.attr("keepdims", 1)
    node.set_out(
        node.frozen_axis(1) if k in which else axis
        for k, axis in enumerate(x)
        if k not in which or keepdims
    )
    return [x[k] for k in sorted(which)]
