"""Re-fitting in closed form, layer by layer: what is left of each weight learns to give what the original gave.

In graph order, every contraction of the pruned model that the cut has changed or that lies behind such a one gets

    W, b = argmin  E |W x + b - t|^2 + lambda |(W - W_0) D|^2

with x what reaches it in the *pruned* model, all weights before it re-fitted already, and t what the original gave at
the same place: so each layer also takes back what the layers before it got wrong. W_0 are the original's numbers (or
what a criterion says makes up for the indices that went), D^2 the diagonal of Cov(x), and lambda is what does best on
the half of the samples that it was not fitted on.

Which contractions, and what t is where the sums go into an Add: see `onnxprune.recover.jobs`.

Sources: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017 (least squares on the
pruned model's inputs); Li et al., "Pruning by reconstruction", Expert Systems with Applications 296, 2026.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.moments import Moments, Sums, positions_seen
from onnxprune.calibrate.views import store
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Keep, Tracing
from onnxprune.progress import Progress
from onnxprune.recover.jobs import Job, affected_jobs, bias_place, channels_left
from onnxprune.runtime.dataset import Dataset

__all__ = ["Refitted", "refit"]

LAMBDAS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Shrinkage towards the weights there are, tried in turn."""

Array = np.ndarray


@dataclass(frozen=True)
class Refitted:
    """What became of one weight.

    Attributes:
        name: The weight's name.
        before: Relative squared error of what it gave before, on the samples.
        after: The same, re-fitted.
        shrinkage: The lambda chosen.
    """

    name: str
    before: float
    after: float
    shrinkage: float


def refit(
    tracing: Tracing,
    keep: Keep,
    pruned: ir.Model,
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> list[Refitted]:
    """Re-fits the weights of a pruned model, in place.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What `cut` made of the two; only weights and biases of contractions are changed.
        data: Samples, without labels.
        progress: Where it is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
    """
    jobs = affected_jobs(tracing, keep, pruned)
    before, after = walk_of(tracing, data, providers), walk_of(tracing, data, providers, pruned)
    done = []
    with progress.step("re-fitting", total=len(jobs)) as advance:
        for job in jobs:
            before.advance(job.each.node)
            after.advance(job.twin)
            done.append(_solve(job, before, after, len(data), seed))
            advance(1)
    return done


def _solve(job: Job, before: Walk, after: Walk, samples: int, seed: int) -> Refitted:
    each, twin = job.each, job.twin
    weight = job.view.read()
    groups = twin.attributes.get_int("group", 1) if each.kind == "conv" else 1
    w0 = each.matrix(weight, groups)
    moments, where, first = Moments(), None, True
    needed = [job.data] + ([job.other] if job.other is not None else [])
    kernel = weight.shape[2:]
    for batch, (mine, theirs) in enumerate(
        zip(after.values(needed), before.values([job.target]), strict=True)
    ):
        x, t = mine[0], channels_left(theirs[0], job)
        if first:
            where, first = (
                positions_seen(each, w0.shape[2], samples, each.positions(x, kernel), seed),
                False,
            )
        if job.other is not None:
            t = t - mine[1]
        rows = after.rows[batch]
        aligned = x.shape[0] == rows.stop - rows.start
        moments.add(
            each.inputs(x, where, kernel, groups),
            each.outputs(t, where, groups),
            rows,
            aligned,
            batch,
        )
    return _apply(job, moments, w0, weight.shape)


def _apply(job: Job, moments: Moments, w0: Array, shape: Sequence[int]) -> Refitted:
    behind = job.each.bias is None  # what an Add adds to a sum of two branches is no matter of one
    place = None if behind and job.other is not None else bias_place(job)
    if place is None:
        moments = moments.raw()
    total = moments.total
    best = _shrinkage(moments, w0)
    fitted = _fit(total, w0, best)
    shift = (total.t - np.einsum("gmk,gk->gm", fitted, total.x)) / total.count
    old = _error(total, w0)
    new = _error(total, fitted)
    name = job.view.source.name or ""
    if not np.isfinite(fitted).all():
        return Refitted(name, old, old, float("inf"))
    store(job.view, job.each.weight(fitted, shape))
    if place is not None:
        place.write(shift.reshape(-1) + (place.read() if behind else 0), job.ir_version)
    return Refitted(name, old, new, best)


def _fit(sums: Sums, w0: Array, shrinkage: float) -> Array:
    """The ridge solution towards w0: (G, M, K)."""
    a, b = sums.covariance(), sums.cross()
    ridge = _ridge(a) * shrinkage
    k = a.shape[-1]
    a = a + ridge[:, :, None] * np.eye(k)
    b = b + w0 * ridge[:, None, :]
    found: Array = np.linalg.solve(a, b.transpose(0, 2, 1)).transpose(0, 2, 1)
    return found


def _ridge(covariance: Array) -> Array:
    """The diagonal that a shrinkage of 1 adds: the variance of each input, and a little of their mean: (G, K)."""
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    mean = diagonal.mean()
    found: Array = np.maximum(diagonal, 0) * 0.5 + mean * 0.5 + 1e-12
    return found


def _error(sums: Sums, w: Array) -> float:
    """Squared error of w with the best bias, relative to the variance of the target."""
    a, b = sums.covariance(), sums.cross()
    variance = float((sums.tt / sums.count - (sums.t / sums.count) ** 2).sum())
    error = variance - 2 * float((w * b).sum()) + float(((w @ a) * w).sum())
    return error / max(variance, 1e-30)


def _shrinkage(moments: Moments, w0: Array) -> float:
    """The lambda that does best on the half that it was not fitted on."""
    first, second = moments.halves
    if not (first.count and second.count):
        return 0.1
    known: dict[int, float] = {}

    def error(k: int) -> float:
        if k not in known:
            s = LAMBDAS[k]
            known[k] = _error(second, _fit(first, w0, s)) + _error(first, _fit(second, w0, s))
        return known[k]

    best = len(LAMBDAS) // 2
    while True:  # the error has one minimum along lambda
        around = range(max(best - 1, 0), min(best + 2, len(LAMBDAS)))
        lowest = min(around, key=error)
        if lowest == best:
            return LAMBDAS[best] / 2  # twice as many samples ask for half of it
        best = lowest
