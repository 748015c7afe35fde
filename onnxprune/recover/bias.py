"""Means into biases: what the removed channels gave on average is added to what reads them.

Every contraction of which inputs were removed gets

    b <- b + W_gone E[x_gone]

with the original's weights and the means of what reached them in the original. A contraction without a bias gets one.
Weights stay as they are, and one mean for each input is all that is estimated: so it takes one run of each sample, and
few samples. It is what folding constants (`onnxprune.fold`) is, of channels that are constant only on average.

Source: Ye et al., "Rethinking the smaller-norm-less-informative assumption in channel pruning of convolution layers",
ICLR 2018, section 4, there for the constants that channels without variance give.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import rows_seen, walk_of
from onnxprune.calibrate.contraction import Contraction, data_axis
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Keep, Tracing, keep_mask
from onnxprune.progress import Progress
from onnxprune.recover.jobs import Job, affected_jobs, bias_place
from onnxprune.runtime.dataset import Dataset

__all__ = ["correct_biases"]

Array = np.ndarray


def correct_biases(
    tracing: Tracing,
    keep: Keep,
    pruned: ir.Model,
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> int:
    """Corrects the biases of a pruned model, in place.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What `cut` made of the two; only biases change, and those that were missing are added.
        data: Samples, without labels.
        progress: Where it is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.

    Returns:
        How many biases were corrected.
    """
    jobs = [
        job
        for job in affected_jobs(tracing, keep, pruned)
        if _gone(job, tracing, keep).any() and bias_place(job, make=True) is not None
    ]
    walk = walk_of(tracing, data, providers)
    with progress.step("correcting biases", total=len(jobs)) as advance:
        for job in jobs:
            walk.advance(job.each.node)
            shift = _shift(
                job.each, _means(job.each, walk, len(data), seed), _gone(job, tracing, keep)
            )
            place = bias_place(job, make=True)
            assert place is not None
            place.write(place.read() + shift[job.outputs], job.ir_version)
            advance(1)
    return len(jobs)


def _gone(job: Job, tracing: Tracing, keep: Keep) -> Array:
    """Which channels of the data the contraction has lost."""
    return ~keep_mask(data_axis(job.each, tracing), keep)


def _means(each: Contraction, walk: Walk, samples: int, seed: int) -> Array:
    """E[x] of what each column of W meets, borders included: float64, (G, K)."""
    total, count = np.zeros(()), 0
    for rows in rows_seen(walk, each, each.data, samples, seed):
        total, count = total + rows.sum(1, dtype=np.float64), count + rows.shape[1]
    return np.asarray(total / count)


def _shift(each: Contraction, means: Array, gone: Array) -> Array:
    """W_gone E[x_gone], for each output of the original."""
    weight = each.matrix(each.view.read())
    columns = np.where(np.repeat(gone, each.taps).reshape(means.shape), means, 0)
    return np.asarray(np.einsum("gmk,gk->gm", weight, columns)).reshape(-1)
