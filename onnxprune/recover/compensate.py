"""What a criterion knows to make up for the indices that went, written into the pruned model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.views import store
from onnxprune.dims import Keep, Tracing
from onnxprune.recover.jobs import affected_jobs, own_bias, twin_groups
from onnxprune.scores.obs import Fitted

__all__ = ["compensate"]


def compensate(
    tracing: Tracing, keep: Keep, pruned: ir.Model, fitted: Mapping[ir.Node, Fitted]
) -> None:
    """Writes weights and biases, in place, where they fit; others stay.

    Args:
        tracing: The model that was cut.
        keep: What was kept of it.
        pruned: What `cut` made of the two.
        fitted: What makes up, by node of the model that was cut; its outputs are those before the cut.
    """
    for job in affected_jobs(tracing, keep, pruned):
        if job.each.node not in fitted:
            continue
        found, weight = fitted[job.each.node], job.view.read()
        rows = _rows(found.weight.read(), job.outputs)
        if rows is None or rows.shape != job.each.matrix(weight, twin_groups(job)).shape:
            continue
        store(job.view, job.each.weight(rows, weight.shape))
        bias = own_bias(job)
        if bias is not None and found.shift.size == job.outputs.size:
            bias.write(bias.read() + found.shift.reshape(-1)[job.outputs], job.ir_version)


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
