"""Re-fitting in closed form, layer by layer: what is left of each weight learns to give what the original gave.

In graph order, every contraction of the pruned model that the cut has changed or that lies behind such a one gets

    W, b = argmin  E |W x + b - t|^2 + lambda |(W - W_0) D|^2

with x what reaches it in the *pruned* model, all weights before it re-fitted already, and t what the original gave at
the same place: so each layer also takes back what the layers before it got wrong. W_0 is what the pruned model has
(see `compensate`), D^2 the diagonal of Cov(x).

Where a Relu, a Clip or a MaxPool follows, t need only be right up to what can be told behind that, which
`onnxprune.recover.behind` says. So the fit is repeated, each time towards the right values nearest to what the last one
gave, with Nesterov's momentum. The moments of x stay, so that a repetition costs two matrix products.

Weights that were fitted on few samples do better on these than on any others, and a layer fitted behind them would
trust its inputs too much, the more the deeper it is. So lambda is what does best on samples held aside, as they come
out of a model that was fitted without them up to there; then all samples are fitted with the lambdas found.

Which contractions, and what t is where the sums go into an Add: see `onnxprune.recover.jobs`.

Sources: He, Zhang, Sun, "Channel pruning for accelerating very deep neural networks", ICCV 2017 (least squares on the
pruned model's inputs); Li et al., "Pruning by reconstruction", Expert Systems with Applications 296, 2026.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.moments import Sums
from onnxprune.calibrate.views import store
from onnxprune.dims import Keep, Tracing
from onnxprune.graph import clone
from onnxprune.progress import Progress
from onnxprune.recover.jobs import Job, affected_jobs, own_bias, twin_groups
from onnxprune.recover.original import Original
from onnxprune.recover.ridge import Errors, Ridge, best_ridge, shift
from onnxprune.recover.rows import Rows
from onnxprune.runtime.dataset import Dataset, hold_aside

__all__ = ["Refitted", "fit", "refit"]

DEFAULT = 0.1
"""Lambda where there are too few samples to choose one."""
ASIDE = 0.25
FEWEST = 8
ROUNDS = 6
"""How often targets on flat parts are moved."""

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
    changed: Collection[str] = (),
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
        changed: Names of values that are other ones in the pruned model, besides.
    """
    parts = hold_aside(data, ASIDE, seed) if data.can_spare(FEWEST) else (data,)
    original = Original(tracing, parts, providers, seed)
    if len(parts) == 1:
        return fit(original, keep, pruned, progress, changed=changed)
    trial = fit(original, keep, clone(pruned), progress, changed=changed)
    share = len(parts[0]) / len(data)  # more samples ask for less
    shrinkages = [each.shrinkage * share for each in trial]
    return fit(original, keep, pruned, progress, shrinkages, changed)


def fit(
    original: Original,
    keep: Keep,
    pruned: ir.Model,
    progress: Progress,
    shrinkages: Sequence[float] | None = None,
    changed: Collection[str] = (),
) -> list[Refitted]:
    """One pass of `refit`, in place.

    Args:
        original: What to repair towards, and the samples: the first part is fitted on, the second chooses the lambdas.
        keep: What was kept of it.
        pruned: What `cut` made of the two.
        progress: Where it is shown.
        shrinkages: The lambdas, where they are known; all samples are fitted on then.
        changed: Names of values that are other ones in the pruned model, besides.
    """
    jobs, done = affected_jobs(original.tracing, keep, pruned, changed), []
    walk, parts = original.walk(pruned), range(len(original.parts))
    with progress.step("re-fitting", total=len(jobs)) as advance:
        for k, job in enumerate(jobs):
            goal = original.goal(job)
            walk.advance(job.twin)
            if shrinkages is not None:
                done.append(_solve(job, Rows(job, goal, walk, parts), None, shrinkages[k]))
            else:
                used, *aside = (Rows(job, goal, walk, [part]) for part in parts)
                done.append(_solve(job, used, aside[0] if aside else None, None))
            advance(1)
    return done


def _solve(job: Job, used: Rows, aside: Rows | None, shrinkage: float | None) -> Refitted:
    weight = job.view.read()
    w0 = job.each.matrix(weight, twin_groups(job))
    place = own_bias(job)
    seen = used.sums() if place is not None else used.sums().raw()
    errors = Errors(seen)
    if shrinkage is None and aside is not None:
        unseen = aside.sums() if place is not None else aside.sums().raw()
        ridge = best_ridge(errors, Errors(unseen), w0)
    else:
        ridge = Ridge(errors.covariance, w0, DEFAULT if shrinkage is None else shrinkage)
    fitted, shrinkage = ridge.fit(errors.cross), ridge.shrinkage
    old, new = errors(w0), errors(fitted)
    if used.behind is None or place is None:
        bias = shift(seen, fitted)
    else:
        fitted, bias = _around(used, seen, ridge, fitted)
    name = job.view.source.name or ""
    if not np.isfinite(fitted).all():
        return Refitted(name, old, old, shrinkage)
    store(job.view, job.each.weight(fitted, weight.shape))
    if place is not None:
        before = place.read() if job.each.bias is None else 0  # behind what is fitted
        place.write(bias.reshape(-1) + before, job.ir_version)
    return Refitted(name, old, new, shrinkage)


def _around(rows: Rows, seen: Sums, ridge: Ridge, w: Array) -> tuple[Array, Array]:
    """Fits to what can be told behind alone, from the plain fit on: weights (G, M, K) and biases (G, M)."""
    found = ahead = (w, shift(seen, w))
    pace = 1.0
    ridge.invert()
    for _ in range(ROUNDS):
        sums = rows.towards(seen, *ahead)
        w = ridge.fit(sums.cross())
        last, found = found, (w, shift(sums, w))
        faster = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        momentum, pace = (pace - 1) / faster, faster
        ahead = (
            found[0] + momentum * (found[0] - last[0]),
            found[1] + momentum * (found[1] - last[1]),
        )
    return found
