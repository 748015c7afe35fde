"""Indices of Dims that can go at no loss: what they carry is felt nowhere.

An index is dead where every node that mixes it with others gives the same with and without it:

1. a sum with constant weights, if all the index's weights there are zero, or what arrives is zero;
2. any other node, if what arrives is zero.

Nodes that only pass it along (`LAYOUT`, `INSIDE`, and those that work element by element) ask nothing: what becomes of
it there is a question to those behind them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.biases import bias_of
from onnxprune.calibrate.contraction import Contraction, contractions, data_axis
from onnxprune.dims import Axis, Dim, Keep, Tracing, leaves, positions
from onnxprune.fold.constants import (
    DOMAINS,
    ELEMENTWISE,
    MOVING,
    SAME,
    SAME_IF_ZERO,
    Known,
    by_position,
    known_constants,
    pads,
    silent,
    sums_of,
)
from onnxprune.graph.patterns import is_left_alone

__all__ = ["dead_indices", "foldable"]

Array = np.ndarray

NORMALISING = (
    "BatchNormalization InstanceNormalization LayerNormalization GroupNormalization RMSNormalization "
    "Softmax LogSoftmax"
)
REDUCING = "ReduceL1 ReduceL2 ReduceSumSquare"

LAYOUT = MOVING | {"Pad", "Shape", "Size"}
"""Ops that move or drop elements, or look at sizes only."""
INSIDE = SAME | SAME_IF_ZERO | frozenset(f"{NORMALISING} {REDUCING}".split())
"""Ops that work within each index of the Dims that their output has too."""


def dead_indices(tracing: Tracing, folding: bool = False) -> Keep:
    """What can be cut at no loss, whatever the model is fed.

    Args:
        tracing: The model.
        folding: Whether what arrives may also be a constant that `fold_constants` can take away.

    Returns:
        For every Dim with dead indices a mask of the others; one index is kept of a Dim that is dead as a whole.
    """
    known = known_constants(tracing)
    felt: dict[Dim, Array] = {}
    for axis, feels, dims in _readings(tracing, known, folding):
        for dim in dims:
            mask = felt.setdefault(dim, np.zeros(dim.size, bool))
            for row in positions(axis, dim):
                np.logical_or.at(mask, row[row >= 0], feels[row >= 0])
    found = {}
    for info in tracing.free():
        if info.dim in felt and not (mask := felt[info.dim]).all():
            mask[0] |= not mask.any()
            found[info.dim] = mask
    return found


def _readings(
    tracing: Tracing, known: Mapping[ir.Value, Known], folding: bool
) -> Iterator[tuple[Axis, Array, set[Dim]]]:
    """Every axis that a node mixes indices of, at which positions it feels what arrives, and of which Dims."""
    sums = sums_of(contractions(tracing, most=None))
    for node in tracing.model.graph.all_nodes():
        mine = sums.get(node, [])
        for each in mine:
            axis = data_axis(each, tracing)
            arrives = by_position(axis, known.get(each.data, {}))
            felt = np.isnan(arrives) if folding and foldable(each, tracing) else arrives != 0
            yield axis, felt & ~silent(each), set(leaves(axis))
        read = {each.data for each in mine}
        for k, value in enumerate(node.inputs):
            if value is None or value in tracing.constants or value in read:
                continue
            axes = tracing.input_axes(node, k) or ()
            mixed = _mixed(node, k, axes, tracing)
            for axis in axes:
                dims = mixed & set(leaves(axis))
                if dims:
                    yield axis, by_position(axis, known.get(value, {})) != 0, dims


def foldable(each: Contraction, tracing: Tracing) -> bool:
    """Whether a constant input of a sum can become part of its bias, and may."""
    if is_left_alone(tracing.model, each.names):
        return False
    groups, outputs, _ = each.arranged(each.view.read()).shape
    place = bias_of(each, each.node, groups * outputs)
    return place is not None and not each.view.shared and not pads(each.node)


def _mixed(node: ir.Node, index: int, axes: tuple[Axis, ...], tracing: Tracing) -> set[Dim]:
    """The Dims of an operand of which a node mixes the indices, for all that is known of the op."""
    dims = {dim for axis in axes for dim in leaves(axis)}
    if node.domain in DOMAINS:
        if node.op_type in LAYOUT or node.op_type in ELEMENTWISE:
            return set()
        if node.op_type in INSIDE:
            out = tracing.axes.get(node.outputs[0], ())
            return dims - {dim for axis in out for dim in leaves(axis)}
        if node.op_type == "MatMul":
            return set(leaves(axes[-1] if index == 0 or len(axes) == 1 else axes[-2]))
    return dims
