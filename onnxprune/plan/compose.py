"""Several cuts in a row as one cut of the first model.

Every step of progressive pruning cuts the model of the step before. The plan speaks of the tensors of the input file,
and so do re-fitting against the original and rewinding to its weights. A weight is the same one in both models where
the node that reads it gives the same value: names of values survive a cut, those of copied weights need not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Axis, Dim, Keep, Tracing, Use, keep_mask, leaves, positions, size
from onnxprune.errors import ValidationError
from onnxprune.plan.weight_plan import Mask, WeightPlan

__all__ = ["compose", "compose_masks"]


def compose(first: Tracing, before: Keep, second: Tracing, then: Keep) -> dict[Dim, np.ndarray]:
    """What is kept of the first model's Dims once the second model has been cut as well.

    Args:
        first: The first model.
        before: What was kept of it to make the second.
        second: The second model, traced anew; its weights may have other values.
        then: What is kept of that.

    Returns:
        A boolean array of shape (dim.size,) for every Dim of the first model that has lost indices.

    Raises:
        ValidationError: The two cuts are no cut of the first model's Dims.
    """
    pairs = list(_pairs(first, before, second, then))
    keep = {dim: mask.copy() for dim, mask in before.items()}
    for axis, _, stays in pairs:
        if np.array_equal(keep_mask(axis, before), stays):
            continue
        for dim in dict.fromkeys(leaves(axis)):
            alive = _alive(axis, dim, stays)
            if not alive.all():
                keep[dim] = keep.get(dim, np.ones(dim.size, bool)) & alive
    told = {dim for _, later, _ in pairs for dim in leaves(later)}
    whole = all(dim in told for dim, mask in then.items() if not mask.all())
    right = all(np.array_equal(keep_mask(axis, keep), stays) for axis, _, stays in pairs)
    if not (whole and right) or any(dim.frozen for dim in keep):
        raise ValidationError(
            "a step cut what cannot be cut of the original; nothing was written: use fewer steps, or --exclude"
        )
    return keep


def compose_masks(before: WeightPlan | None, then: WeightPlan) -> WeightPlan:
    """The zeros of two plans in a row: what the first zeroed stays zero.

    Raises:
        ValidationError: A tensor has another shape in the second plan.
    """
    zeroed: dict[str, Mask] = dict(before.zeroed) if before is not None else {}
    for name, mask in then.zeroed.items():
        old = zeroed.get(name)
        if old is not None and old.shape != mask.shape:
            raise ValidationError(f"the tensor {name!r} changed its shape between two steps")
        zeroed[name] = mask if old is None else Mask.of(old.array() | mask.array())
    return WeightPlan(then.granularity, zeroed, then.skipped, then.details)


def _pairs(
    first: Tracing, before: Keep, second: Tracing, then: Keep
) -> Iterator[tuple[Axis, Axis, np.ndarray]]:
    """Every axis of a weight in the first model and in the second, and the positions of the first's left in the end."""
    uses = _by_place(second)
    for place, use in _by_place(first).items():
        twin = uses.get(place)
        if twin is None or len(twin.axes) != len(use.axes):
            continue
        for axis, later in zip(use.axes, twin.axes, strict=True):
            left = keep_mask(axis, before)
            if size(later) == left.sum():
                stays = left.copy()
                stays[left] = keep_mask(later, then)
                yield axis, later, stays


def _by_place(tracing: Tracing) -> Mapping[tuple[str, int, int], Use]:
    """Weight uses by what reads them: the first output of the node, which one of that name, and the input.

    A weight that no node reads as one (a ConstantOfShape makes it) is told by its own name.
    """
    seen: Counter[str] = Counter()
    places: dict[ir.Node, tuple[str, int]] = {}
    for node in tracing.model.graph.all_nodes():
        name = node.outputs[0].name or "" if node.outputs else ""
        places[node] = (name, seen[name])
        seen[name] += 1
    return {
        (use.weight.name, 0, -1) if use.node is None else (*places[use.node], use.index): use
        for use in tracing.uses
    }


def _alive(axis: Axis, dim: Dim, stays: np.ndarray) -> np.ndarray:
    """The indices of a Dim that have a position left along an axis."""
    alive = np.zeros(dim.size, bool)
    for row in positions(axis, dim):
        alive[row[(row >= 0) & stays]] = True
    return alive
