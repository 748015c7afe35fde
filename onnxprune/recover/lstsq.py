"""Re-fitting in closed form, layer by layer: what is left of each weight learns to give what the original gave.

In graph order, every contraction of the pruned model that the cut has changed or that lies behind such a one gets

    W, b = argmin  E |W x + b - t|^2 + lambda |(W - W_0) D|^2

with x what reaches it in the *pruned* model, all weights before it re-fitted already, and t what the original gave at
the same place: so each layer also takes back what the layers before it got wrong. W_0 is what the pruned model has
(see `compensate`), D^2 the diagonal of Cov(x).

Weights that were fitted on few samples do better on these than on any others, and a layer fitted behind them would
trust its inputs too much, the more the deeper it is. So lambda is what does best on samples held aside, as they come
out of a model that was fitted without them up to there; then all samples are fitted with the lambdas found.

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
from onnxprune.calibrate.moments import Sums, positions_seen
from onnxprune.calibrate.views import store
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import Keep, Tracing
from onnxprune.graph import clone
from onnxprune.progress import Progress
from onnxprune.recover.jobs import Job, affected_jobs, bias_place, channels_left
from onnxprune.runtime.dataset import Dataset, hold_aside

__all__ = ["Refitted", "fit", "refit"]

LAMBDAS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Shrinkage towards the weights there are, tried in turn."""

DEFAULT = 0.1
"""Lambda where there are too few samples to choose one."""
ASIDE = 0.25
FEWEST = 8

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
    used, aside = hold_aside(data, ASIDE, seed) if len(data) >= FEWEST else (data, None)
    if aside is None:
        return fit(tracing, keep, pruned, used, progress, providers, seed)
    trial = fit(tracing, keep, clone(pruned), used, progress, providers, seed, aside)
    share = len(used) / len(data)  # more samples ask for less
    known = [each.shrinkage * share for each in trial]
    return fit(tracing, keep, pruned, data, progress, providers, seed, shrinkages=known)


def fit(
    tracing: Tracing,
    keep: Keep,
    pruned: ir.Model,
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
    aside: Dataset | None = None,
    shrinkages: Sequence[float] | None = None,
) -> list[Refitted]:
    """One pass of `refit`, in place.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What `cut` made of the two.
        data: Samples to fit on.
        progress: Where it is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
        aside: Samples that choose the lambdas.
        shrinkages: The lambdas, where they are known.
    """
    jobs, done = affected_jobs(tracing, keep, pruned), []
    parts = [data] if aside is None else [data, aside]
    runs = [
        _Run(jobs, walk_of(tracing, part, providers), walk_of(tracing, part, providers, pruned))
        for part in parts
    ]
    with progress.step("re-fitting", total=len(jobs)) as advance:
        for k, job in enumerate(jobs):
            sums = [run.sums(k, len(data), seed) for run in runs]
            given = None if shrinkages is None else shrinkages[k]
            done.append(_solve(job, sums[0], sums[-1] if aside is not None else None, given))
            advance(1)
    return done


@dataclass(frozen=True, eq=False)
class _Run:
    """Some samples on their way through the pruned model, and through the original.

    Attributes:
        jobs: What is to be repaired.
        before: In the original.
        after: In the pruned model.
    """

    jobs: Sequence[Job]
    before: Walk
    after: Walk

    def sums(self, number: int, samples: int, seed: int) -> Sums:
        """The sums of what a contraction reads and should give; `samples` is how many there are in all."""
        job = self.jobs[number]
        each, weight = job.each, job.view.read()
        self.before.advance(each.node)
        self.after.advance(job.twin)
        groups, kernel = _groups(job), weight.shape[2:]
        columns = each.matrix(weight, groups).shape[2]
        needed = [job.data] + ([job.other] if job.other is not None else [])
        found, where = Sums(), None
        for mine, theirs in zip(
            self.after.values(needed), self.before.values([job.target]), strict=True
        ):
            x, t = mine[0], channels_left(theirs[0], job)
            if not found.count:
                where = positions_seen(each, columns, samples, each.positions(x, kernel), seed)
            if job.other is not None:
                t = t - mine[1]
            found.add(each.inputs(x, where, kernel, groups), each.outputs(t, where, groups))
        return found


def _groups(job: Job) -> int:
    return job.twin.attributes.get_int("group", 1) if job.each.kind == "conv" else 1


def _solve(job: Job, seen: Sums, unseen: Sums | None, shrinkage: float | None) -> Refitted:
    weight = job.view.read()
    w0 = job.each.matrix(weight, _groups(job))
    behind = job.each.bias is None  # what an Add adds to a sum of two branches is no matter of one
    place = None if behind and job.other is not None else bias_place(job)
    if place is None:
        seen, unseen = seen.raw(), None if unseen is None else unseen.raw()
    if shrinkage is None:
        shrinkage = DEFAULT if unseen is None else _shrinkage(seen, unseen, w0)
    fitted = _fit(seen, w0, shrinkage)
    name = job.view.source.name or ""
    old, new = _error(seen, w0), _error(seen, fitted)
    if not np.isfinite(fitted).all():
        return Refitted(name, old, old, shrinkage)
    store(job.view, job.each.weight(fitted, weight.shape))
    if place is not None:
        shift = (seen.t - np.einsum("gmk,gk->gm", fitted, seen.x)) / seen.count
        place.write(shift.reshape(-1) + (place.read() if behind else 0), job.ir_version)
    return Refitted(name, old, new, shrinkage)


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


def _shrinkage(seen: Sums, unseen: Sums, w0: Array) -> float:
    """The lambda that does best on samples that were not fitted on."""
    known: dict[int, float] = {}

    def error(k: int) -> float:
        if k not in known:
            known[k] = _error(unseen, _fit(seen, w0, LAMBDAS[k]))
        return known[k]

    best = len(LAMBDAS) // 2
    while True:  # the error has one minimum along lambda
        around = range(max(best - 1, 0), min(best + 2, len(LAMBDAS)))
        lowest = min(around, key=error)
        if lowest == best:
            return LAMBDAS[best]
        best = lowest
