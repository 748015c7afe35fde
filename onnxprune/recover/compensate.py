"""The weights that a criterion knows to make up for the indices that went, written into the pruned model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.views import store
from onnxprune.dims import Keep, Tracing
from onnxprune.recover.jobs import affected_jobs
from onnxprune.runtime.shelf import Kept

__all__ = ["compensate"]


def compensate(
    tracing: Tracing, keep: Keep, pruned: ir.Model, fitted: Mapping[ir.Node, Kept]
) -> None:
    """Writes them, in place, where they fit; other weights stay.

    Args:
        tracing: The model that was cut.
        keep: What was kept of it.
        pruned: What `cut` made of the two.
        fitted: Weights by node of the model that was cut, (G, M, columns left); M before the cut.
    """
    for job in affected_jobs(tracing, keep, pruned):
        if job.each.node not in fitted:
            continue
        weight = job.view.read()
        rows = _rows(fitted[job.each.node].read(), job.outputs)
        groups = job.twin.attributes.get_int("group", 1) if job.each.kind == "conv" else 1
        if rows is not None and rows.shape == job.each.matrix(weight, groups).shape:
            store(job.view, job.each.weight(rows, weight.shape))


def _rows(matrix: np.ndarray, outputs: np.ndarray) -> np.ndarray | None:
    """The rows of the outputs that are left, as many in each group; None if they are not."""
    groups, rows, columns = matrix.shape
    if outputs.size != groups * rows:
        return None
    stays = outputs.reshape(groups, rows)
    if len(set(stays.sum(1).tolist())) > 1:
        return None
    found: np.ndarray = matrix[stays].reshape(groups, -1, columns)
    return found
