"""Constants into biases: what a constant channel gives to a sum is added to the bias, and its weights become zero.

    y = W x + b,  x_j = c for all inputs:    b <- b + W_j c,  W_j <- 0

The function is the same, and the channel then reaches nobody (`dead_indices`). Not behind a padded border, where x_j is
c inside and 0 outside; and only channels that all their readers can do without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.biases import bias_of
from onnxprune.calibrate.contraction import Contraction, contractions, data_axis
from onnxprune.calibrate.views import store, view_of
from onnxprune.dims import Dim, Keep, Tracing, keep_mask
from onnxprune.fold.constants import Known, by_position, known_constants, silent
from onnxprune.fold.dead import dead_indices, foldable
from onnxprune.graph.edit import Edit

__all__ = ["Folded", "fold_constants"]


@dataclass(frozen=True)
class Folded:
    """A model of the same function.

    Attributes:
        model: The model; untouched where nothing was folded.
        channels: How many constant channels were folded into biases.
    """

    model: ir.Model
    channels: int = 0


def fold_constants(tracing: Tracing, dims: frozenset[Dim]) -> Folded:
    """Folds the constant channels of some Dims into the biases of what reads them.

    Args:
        tracing: The model; it is not changed.
        dims: The Dims that may be cut.
    """
    keep = {dim: mask for dim, mask in dead_indices(tracing, folding=True).items() if dim in dims}
    gone = sum(int((~mask).sum()) for mask in keep.values())
    gone -= sum(int((~mask).sum()) for dim, mask in dead_indices(tracing).items() if dim in dims)
    if not gone:
        return Folded(tracing.model)
    edit, known = Edit(tracing.model), known_constants(tracing)
    for each in contractions(tracing, most=None):
        if foldable(each, tracing):
            _fold(each, tracing, keep, known, edit)
    return Folded(edit.model, gone)


def _fold(
    each: Contraction,
    tracing: Tracing,
    keep: Keep,
    known: Mapping[ir.Value, Known],
    edit: Edit,
) -> None:
    axis = data_axis(each, tracing)
    arrives = by_position(axis, known.get(each.data, {}))
    chosen = ~keep_mask(axis, keep) & ~silent(each) & (np.nan_to_num(arrives) != 0)
    if not chosen.any():
        return
    twin = edit.node[each.node]
    weight = np.array(each.view.read())
    matrix = each.matrix(weight)
    groups, outputs, _ = matrix.shape
    columns = np.repeat(np.where(chosen, arrives, 0), each.taps).reshape(groups, -1)
    shift = np.einsum("gmk,gk->gm", matrix, columns).reshape(-1)
    place = bias_of(each, twin, groups * outputs)
    value = twin.inputs[each.index]
    assert place is not None
    assert value is not None
    place.write(place.read() + shift, tracing.model.ir_version)
    view = view_of(value)
    assert view is not None
    store(view, each.weight(np.where(columns[:, None] != 0, 0.0, matrix), weight.shape))
