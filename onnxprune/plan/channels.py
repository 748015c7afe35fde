"""Which indices of which Dims go: candidates, how many of each, and which ones.

Sparsity is per axis. Where an axis is a product of Dims that never stand alone (the groups and the width of a grouped
convolution), only those are cut that leave the fewest MACs, and no axis loses more than it was asked to; heads and
their width are axes of their own wherever attention has them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np

from onnxprune.dims import (
    Axis,
    Dim,
    DimInfo,
    Keep,
    Product,
    Tracing,
    by_weight,
    leaves,
    positions,
    size,
)
from onnxprune.dims.axis import children
from onnxprune.graph import Weight
from onnxprune.graph.cost import LEARNED, macs
from onnxprune.graph.patterns import is_named
from onnxprune.options import PruneOptions
from onnxprune.plan.rounding import least_of, step_of
from onnxprune.runtime.hardware import channel_step
from onnxprune.scores import Context, Criterion

__all__ = [
    "candidates",
    "channel_scores",
    "choose",
    "is_left_alone",
    "kept_counts",
    "macs_left",
    "scored_weights",
]

SCORING_THREADS = 2
LARGEST_TRIED = 12
"""Groups of Dims that exclude each other are searched from at most this many starts."""


def candidates(tracing: Tracing, options: PruneOptions) -> tuple[DimInfo, ...]:
    """The Dims that may be cut under the options, in graph order, no axis twice."""
    free = [
        info
        for info in tracing.free(options.allow_inexact)
        if info.size > options.min_channels
        and _scored(info)
        and not is_left_alone(info, options.exclude)
    ]
    return _once_per_axis(tracing, free, options)


def _scored(info: DimInfo) -> bool:
    """Whether it is part of a tensor that holds learned numbers."""
    return any(use.weight.dtype in LEARNED for use, _ in info.slices)


def is_left_alone(info: DimInfo, patterns: Sequence[str]) -> bool:
    """Whether a tensor that a Dim is part of, or a node that reads it, is excluded."""
    names = {use.weight.name for use, _ in info.slices}
    names |= {use.node.name for use, _ in info.slices if use.node is not None and use.node.name}
    return is_named(names, patterns)


def _once_per_axis(
    tracing: Tracing, free: Sequence[DimInfo], options: PruneOptions
) -> tuple[DimInfo, ...]:
    rivals = _rivals(tracing, {info.dim for info in free})
    chosen = {info.dim for info in free if info.dim not in rivals}
    while rivals:
        group, queue = dict[Dim, None](), [next(iter(rivals))]
        while queue:
            dim = queue.pop()
            if dim not in group:
                group[dim] = None
                queue += rivals[dim]
        options_ = {
            tuple(_greedy(start, group, rivals)): None for start in list(group)[:LARGEST_TRIED]
        }
        counts = {dim: max(1, _share(dim.size, options)) for dim in group}
        chosen |= set(
            min(options_, key=lambda dims: macs_left(tracing, {dim: counts[dim] for dim in dims}))
        )
        for dim in group:
            del rivals[dim]
    return tuple(info for info in free if info.dim in chosen)


def _greedy(
    start: Dim, group: Mapping[Dim, None], rivals: Mapping[Dim, Mapping[Dim, None]]
) -> list[Dim]:
    """A largest set with `start` of which no two are rivals, in graph order."""
    taken = [start]
    for dim in group:
        if dim is not start and not any(other in rivals[dim] for other in taken):
            taken.append(dim)
    return sorted(taken, key=list(group).index)


def _rivals(tracing: Tracing, free: set[Dim]) -> dict[Dim, dict[Dim, None]]:
    """Free Dims that are factors of one axis, unless each also stands alone in a value that is computed."""
    alone = {axis for axes in tracing.axes.values() for axis in axes if isinstance(axis, Dim)}
    found: dict[Dim, dict[Dim, None]] = {}
    every = [*tracing.axes.values(), *(use.axes for use in tracing.uses)]
    for axis in (axis for axes in every for axis in axes):
        for product in _products(axis):
            factors = [[d for d in dict.fromkeys(leaves(f)) if d in free] for f in product.factors]
            for left, right in combinations(factors, 2):
                for a in left:
                    for b in right:
                        if a is not b and not (a in alone and b in alone):
                            found.setdefault(a, {})[b] = None
                            found.setdefault(b, {})[a] = None
    return found


def _products(axis: Axis) -> list[Product]:
    own = [axis] if isinstance(axis, Product) else []
    return own + [product for child in children(axis) for product in _products(child)]


def macs_left(tracing: Tracing, kept: Mapping[Dim, int]) -> int:
    """MACs of one run once every Dim keeps so many indices."""
    shapes = {
        value: tuple(size(axis, kept) for axis in axes) for value, axes in tracing.axes.items()
    }
    for use in tracing.uses:
        shapes[use.weight.value] = tuple(size(axis, kept) for axis in use.axes)
    return macs(tracing.model, shapes)


def kept_counts(
    dims: Sequence[DimInfo], scores: Mapping[Dim, np.ndarray], options: PruneOptions
) -> dict[Dim, int]:
    """How many indices each Dim keeps.

    With scope `layer` each keeps its share; with `global` the least salient indices of the whole model go, saliencies
    taken relative to the mean of their Dim. Then counts are rounded to what kernels like; if the model would lose
    nothing at all by that, to halves of it, and so on.
    """
    wanted = _wanted(dims, scores, options)
    divisor = 1
    while True:
        counts = {
            info.dim: _rounded(
                wanted[info.dim],
                info.size,
                max(1, step_of(info, options) // divisor),
                max(options.min_channels, least_of(info, options) // divisor),
            )
            for info in dims
        }
        lost = any(counts[info.dim] < info.size for info in dims)
        if lost or options.round_to is not None or divisor >= channel_step():
            return counts
        divisor *= 2


def _wanted(
    dims: Sequence[DimInfo], scores: Mapping[Dim, np.ndarray], options: PruneOptions
) -> dict[Dim, int]:
    if options.scope == "layer":
        return {info.dim: _share(info.size, options) for info in dims}
    relative = {
        info.dim: scores[info.dim] / max(float(scores[info.dim].mean()), 1e-30) for info in dims
    }
    everything = np.sort(np.concatenate(list(relative.values())))
    gone = round(options.fraction * len(everything))
    bar = everything[gone] if gone < len(everything) else np.inf
    return {info.dim: int((relative[info.dim] >= bar).sum()) for info in dims}


def _share(n: int, options: PruneOptions) -> int:
    return round(n * (1 - options.fraction))


def _rounded(wanted: int, n: int, step: int, least: int) -> int:
    """The nearest multiple of the step (upwards from the middle) within [least, n]."""
    return min(n, max(least, step * max(1, (2 * wanted + step) // (2 * step))))


def channel_scores(
    tracing: Tracing, dims: Sequence[DimInfo], criterion: Criterion, context: Context
) -> dict[Dim, np.ndarray]:
    """The saliency of every index of every Dim.

    Each tensor that an index is part of counts the same: its energies are taken relative to their mean. Vectors
    (biases, scales) count only where there is nothing else.

    Returns:
        A float64 array of shape (dim.size,) for each Dim.
    """
    total = {info.dim: np.zeros(info.size) for info in dims}
    jobs = _jobs(tracing, dims)

    def energies(weight: Weight) -> dict[int, np.ndarray]:
        axes = {k for k, _, _ in jobs[weight]}
        return criterion.energies(weight.name, weight.array(), axes, context)

    with ThreadPoolExecutor(SCORING_THREADS) as pool:  # numpy lets go of the lock while it adds up
        for parts, energy in zip(jobs.values(), pool.map(energies, jobs), strict=True):
            for k, axis, dim in parts:
                total[dim] += _pooled(energy[k], axis, dim)
    return {dim: criterion.norm(energy) for dim, energy in total.items()}


def scored_weights(tracing: Tracing, dims: Sequence[DimInfo]) -> dict[str, Weight]:
    """The tensors that `channel_scores` asks a criterion about, by name."""
    return {weight.name: weight for weight in _jobs(tracing, dims)}


def _jobs(tracing: Tracing, dims: Sequence[DimInfo]) -> dict[Weight, list[tuple[int, Axis, Dim]]]:
    """For each tensor the axes that count, and the Dims in them."""
    wanted = {info.dim for info in dims}
    matrices = {info.dim: any(len(use.axes) > 1 for use, _ in info.slices) for info in dims}
    jobs: dict[Weight, list[tuple[int, Axis, Dim]]] = {}
    for weight, uses in by_weight(tracing.uses).items():
        parts = [
            (k, axis, dim)
            for use in uses
            for k, axis in enumerate(use.axes)
            for dim in dict.fromkeys(leaves(axis))
            if dim in wanted and (len(use.axes) > 1 or not matrices[dim])
        ]
        if parts and weight.dtype in LEARNED:
            jobs[weight] = parts
    return jobs


def _pooled(energy: np.ndarray, axis: Axis, dim: Dim) -> np.ndarray:
    """Energies along an axis summed by index of a Dim, relative to their mean."""
    found = np.zeros(dim.size)
    for row in positions(axis, dim):
        found += np.bincount(row[row >= 0], weights=energy[row >= 0], minlength=dim.size)
    mean = float(found.mean())
    return found / mean if mean > 0 and np.isfinite(mean) else np.zeros(dim.size)


def choose(
    scores: Mapping[Dim, np.ndarray], counts: Mapping[Dim, int], dead: Keep | None = None
) -> Keep:
    """Keeps the most salient indices that are not dead, the first of equal ones; whole Dims are left out."""
    keep: dict[Dim, np.ndarray] = {}
    for dim, count in counts.items():
        alive = (dead or {}).get(dim, np.ones(dim.size, bool))
        if min(count, int(alive.sum())) < dim.size:
            mask = np.zeros(dim.size, bool)
            mask[np.argsort(-np.where(alive, scores[dim], -1.0), kind="stable")[:count]] = True
            keep[dim] = mask & alive
    return keep
