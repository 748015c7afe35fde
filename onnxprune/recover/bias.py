"""Means into biases: what the removed channels gave on average is added to what reads them.

In graph order, every contraction of the pruned model that the cut has reached gets

    b <- b + E[t] - E[y]

with y what it gives in the *pruned* model, all biases before it corrected already, and t what the original gave at the
same place; on the first one that is W_gone E[x_gone]. A contraction without a bias gets one. Weights stay as they are,
and one mean for each output is all that is estimated: so it takes two runs of each sample, and few samples.

Source: Nagel et al., "Data-free quantization through weight equalization and bias correction", ICCV 2019, section 4.2,
there for quantised weights.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Keep, Tracing
from onnxprune.progress import Progress
from onnxprune.recover.jobs import Job, affected_jobs, bias_place, channels_left
from onnxprune.runtime.dataset import Dataset

__all__ = ["correct_biases"]


def correct_biases(
    tracing: Tracing,
    keep: Keep,
    pruned: ir.Model,
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
) -> int:
    """Corrects the biases of a pruned model, in place.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What `cut` made of the two; only biases change, and those that were missing are added.
        data: Samples, without labels.
        progress: Where it is shown.
        providers: onnxruntime providers by name.

    Returns:
        How many biases were corrected.
    """
    jobs = [job for job in affected_jobs(tracing, keep, pruned) if bias_place(job, make=True)]
    for job in jobs:  # before walking, which knows the nodes that were there when it began
        _written(job, 0.0)
    before, after = walk_of(tracing, data, providers), walk_of(tracing, data, providers, pruned)
    with progress.step("correcting biases", total=len(jobs)) as advance:
        for job in jobs:
            before.advance(job.each.node)
            after.advance(job.twin)
            _written(job, _missing(job, before, after))
            advance(1)
    return len(jobs)


def _missing(job: Job, before: Walk, after: Walk) -> np.ndarray:
    """E[t] - E[y], float64, one number for each output."""
    each, twin = job.each, job.twin
    groups = twin.attributes.get_int("group", 1) if each.kind == "conv" else 1
    wanted = [twin.outputs[0], *([job.other] if job.other is not None else [])]
    total, count = 0.0, 0
    for mine, (theirs,) in zip(after.values(wanted), before.values([job.target]), strict=True):
        gap = channels_left(theirs, job).astype(np.float64) - sum(mine)
        rows = each.outputs(gap, None, groups).astype(np.float64)
        total, count = total + rows.sum(1), count + rows.shape[1]
    return np.asarray(total / count).reshape(-1)


def _written(job: Job, more: np.ndarray | float) -> None:
    place = bias_place(job, make=True)
    assert place is not None
    place.write(place.read() + more, job.ir_version)
