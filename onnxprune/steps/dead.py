"""The pass that comes first: channels that do nothing go, at no loss and whatever else was asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxprune.dims import Dim, Keep, Tracing, trace
from onnxprune.fold import dead_indices, fold_constants
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import is_left_alone
from onnxprune.report import Check
from onnxprune.report.build import proof_check
from onnxprune.runtime.measure import measure
from onnxprune.validation.equality import largest_error, masked

__all__ = ["Dead", "without_dead"]


@dataclass(frozen=True)
class Dead:
    """What is left to prune, and what went before.

    Attributes:
        tracing: The model, with its constant channels folded into biases.
        keep: All but the dead channels, by Dim.
        checks: That the function is the original's.
        notes: How many channels it were.
    """

    tracing: Tracing
    keep: Keep = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    notes: tuple[str, ...] = ()


def without_dead(tracing: Tracing, options: PruneOptions) -> Dead:
    """Finds the channels that can go at no loss, folds what they give into biases, and holds the two models together.

    Where weights must stay the original's (`options.fold` is not set), only channels that nobody feels go.
    """
    model = tracing.model
    folded = 0
    if options.fold:
        found = fold_constants(tracing, _allowed(tracing, options))
        folded = found.channels
        if folded:
            tracing = trace(found.model, measure(found.model, tracing.measured.inputs))
    allowed = _allowed(tracing, options)
    keep = {
        dim: mask
        for dim, mask in dead_indices(tracing).items()
        if dim in allowed and mask.sum() >= options.min_channels
    }
    if not keep:
        return Dead(tracing)
    count = sum(int((~mask).sum()) for mask in keep.values())
    same = largest_error(model, masked(tracing, keep), tracing.measured.inputs, options.seed)
    what = f"dead channels: {count}" + (f", {folded} of them constant" if folded else "")
    if not same.holds:
        original = tracing if not folded else trace(model, measure(model, tracing.measured.inputs))
        return Dead(original, notes=(f"{what}; left, for outputs moved without them",))
    check = proof_check(same, "without dead channels the model is the same", channels=count)
    return Dead(tracing, keep, (check,), (f"{what}; folded away at no loss",))


def _allowed(tracing: Tracing, options: PruneOptions) -> frozenset[Dim]:
    return frozenset(
        info.dim for info in tracing.free() if not is_left_alone(info, options.exclude)
    )
