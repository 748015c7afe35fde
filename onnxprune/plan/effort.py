"""What a model's kernels have to do, told from shapes alone: MACs as onnxruntime's CPU kernels make them, and memory.

Its convolutions (MLAS, `snchwc.cpp`) work on blocks of channels: what they read and what they write counts as whole
blocks. They compute up to four blocks of what they write at once; a single block that is left over cannot keep the
multipliers busy, and takes a third longer. And every number that a kernel reads or writes takes time of its own, which
is most of what a depthwise convolution takes. See "Latency" in `benchmarks/README.md` for the measurements.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from onnxprune.dims import Tracing
from onnxprune.graph.cost import Shapes, node_macs
from onnxprune.plan.budget import Cost, nodes_cost
from onnxprune.runtime.hardware import channel_step

__all__ = ["effort_cost"]

TOGETHER = 4
"""Blocks that are computed at once."""
ALONE = 4 / 3
"""What a block takes that is computed by itself."""
ELEMENT = 8
"""MACs that it takes as long to compute as to read or to write a number."""


def effort_cost(tracing: Tracing) -> Cost:
    """The time of one run of all contractions, in MACs."""
    return nodes_cost(tracing, _effort)


def _effort(node: ir.Node, shapes: Shapes) -> float | None:
    macs = node_macs(node, shapes)
    if not macs:
        return macs
    ends = (*node.inputs[:1], *node.outputs[:1])
    elements = sum(
        math.prod(shapes[value]) for value in ends if value is not None and value in shapes
    )
    return macs * _padding(node, shapes) + ELEMENT * elements


def _padding(node: ir.Node, shapes: Shapes) -> float:
    """How much more a convolution computes than it is asked for."""
    kernel = node.inputs[1] if len(node.inputs) > 1 else None
    if node.op_type != "Conv" or kernel is None or kernel not in shapes:
        return 1.0
    if node.attributes.get_int("group", 1) > 1:
        return 1.0
    written, read, *_ = shapes[kernel]
    block = channel_step()
    sets, alone = divmod(-(-written // block), TOGETHER)
    writes = block * (TOGETHER * sets + (ALONE if alone == 1 else alone))
    reads = read if read < block else block * -(-read // block)
    return writes / written * reads / read
