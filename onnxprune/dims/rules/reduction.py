"""Reductions: what passes, and over what a zero is no neutral element."""

from __future__ import annotations

from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes

ZEROS_ADD_NOTHING = "ReduceSum ReduceL1 ReduceL2 ReduceSumSquare"
ZEROS_COUNT = "ReduceMean ReduceMax ReduceMin ReduceLogSum ReduceLogSumExp"


@axes(*ZEROS_ADD_NOTHING.split(), *ZEROS_COUNT.split(), "ReduceProd")
def reduce(node: Context) -> None:
    """A mean counts zeros, a maximum sees them, and of a product one zero is all."""
    x = node.x(0)
    over = node.numbers("axes", 1)
    if over is None:
        node.freeze_all(f"{node.op} over axes that are not fixed")
        return
    if not over and not node.attr("noop_with_empty_axes", 0):
        over = list(range(len(x)))
    which = {k % len(x) for k in over}
    keepdims = node.attr("keepdims", 1)
    node.set_out(
        node.frozen_axis(1) if k in which else axis
        for k, axis in enumerate(x)
        if k not in which or keepdims
    )
    for k in sorted(which):
        if node.op in ZEROS_COUNT.split():
            node.inexact(x[k])
        elif node.op == "ReduceProd":
            node.freeze(x[k])
