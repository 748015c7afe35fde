"""Zeroing the weights of a whole model, layer by layer, each on what reaches it once those before it are sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import rows_seen, walk_of
from onnxprune.calibrate.contraction import Contraction, contractions
from onnxprune.calibrate.moments import Sums
from onnxprune.calibrate.views import store, view_of
from onnxprune.calibrate.walk import Walk
from onnxprune.dims import trace
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.plan.weights import weight_names
from onnxprune.plan.zero import zero
from onnxprune.progress import Progress
from onnxprune.recover.sparse import Pattern, sparse_rows
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.inputs import Shapes
from onnxprune.runtime.measure import measure

__all__ = ["compensate_zeros"]

Array = np.ndarray


def compensate_zeros(
    model: ir.Model,
    pruned: ir.Model,
    plan: WeightPlan,
    pattern_of: Callable[[Mask], Pattern],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
    shapes: Shapes | None = None,
) -> WeightPlan:
    """Zeroes the weights of a copy of a model, and lets those that stay make up for them.

    Args:
        model: The original.
        pruned: A copy of it, the same but for the numbers in its weights; changed in place.
        plan: Which tensors are to have zeros, and where.
        pattern_of: From a tensor's mask in the plan to what becomes zero: a share chosen here, or just what it says.
        data: Samples, without labels.
        progress: Where it is shown.
        providers: onnxruntime providers by name.
        seed: Of the positions looked at where there are many.
        shapes: Shapes of inputs that are open.

    Returns:
        The plan that was carried out: tensors of which nobody can see what they multiply keep to the given one, and
        are not compensated.
    """
    tracing = trace(model, measure(model, {**data.shapes_of_one, **(shapes or {})}))
    names = weight_names(model)
    jobs = [
        each
        for each in contractions(tracing)
        if not each.view.shared and names.get(each.view.source) in plan.zeroed
    ]
    seen = {names[each.view.source] for each in jobs}
    masks = dict(plan.zeroed)
    zero(pruned, replace(plan, zeroed={k: v for k, v in masks.items() if k not in seen}))
    twins = dict(zip(model.graph, pruned.graph, strict=True))
    walk = walk_of(tracing, data, providers, pruned)
    with progress.step("zeroing weights", total=len(jobs)) as advance:
        for each in jobs:
            name, twin = names[each.view.source], twins[each.node]
            moment = _moment(each, twin, walk, len(data), seed)
            masks[name] = _sparse(each, twin, moment, pattern_of(masks[name]))
            advance(1)
    return replace(plan, zeroed={name: mask for name, mask in masks.items() if mask.count})


def _moment(each: Contraction, twin: ir.Node, walk: Walk, samples: int, seed: int) -> Array:
    """E[x x'] of what reaches the weight in the sparse model: float64, (G, K, K)."""
    recurrence = each.data in each.node.outputs
    operands = (each.node.outputs, twin.outputs) if recurrence else (each.node.inputs, twin.inputs)
    data = operands[1][list(operands[0]).index(each.data)]
    assert data is not None
    if not recurrence:
        walk.advance(twin)
    sums = Sums(samples=samples)
    for rows in rows_seen(walk, each, data, samples, seed):
        sums.add(rows, None)
    return sums.raw().covariance()


def _sparse(each: Contraction, twin: ir.Node, moment: Array, pattern: Pattern) -> Mask:
    """Zeroes one weight, writes it, and says where."""
    shape = each.view.shape
    matrix = each.matrix(each.view.read())
    columns = matrix.shape[2]
    run = columns // each.taps
    order = (
        np.arange(columns).reshape(run, each.taps).T.reshape(-1)
    )  # one kernel position after the other
    given = (
        each.arranged(_as_read(each, pattern))[:, :, order]
        if isinstance(pattern, np.ndarray)
        else None
    )
    found, zeros = np.empty_like(matrix), np.empty(matrix.shape, bool)
    for g, w in enumerate(matrix):
        chosen = pattern if given is None else given[g]
        h = moment[g % len(moment)][np.ix_(order, order)]
        found[g][:, order], zeros[g][:, order] = sparse_rows(w[:, order], h, chosen, run)
    value = twin.inputs[each.index]
    view = None if value is None else view_of(value)
    assert view is not None
    store(view, each.weight(found, shape))
    return Mask.of(each.view.unread(each.weight(zeros, shape)))


def _as_read(each: Contraction, stored: Array) -> Array:
    """An array of the stored tensor's shape as the node reads it."""
    for kind, sizes in each.view.steps:
        stored = stored.reshape(sizes) if kind == "shape" else stored.transpose(sizes)
    return stored
