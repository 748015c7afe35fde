"""The proof of a cut, and the search for what spoils it."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, Keep, Tracing, cut
from onnxprune.dims.rules.frozen import REASONS
from onnxprune.errors import ModelError, ValidationError
from onnxprune.graph.cost import macs
from onnxprune.runtime.inputs import random_feed
from onnxprune.runtime.sessions import run, session
from onnxprune.validation.equality import RUNS, Equality, compare_runs, masked
from onnxprune.validation.rank_one import is_big, positive, rank_one

__all__ = ["draws", "inexact_dims", "prove"]

WORK = 1 << 38
"""Multiply-accumulates of the models that are proven in search of what spoils a cut."""
LEAST_PROOFS, MOST_PROOFS = 16, 256
"""Whatever their size: halving finds one Dim of 256 in 16."""
RANDOM = REASONS["it makes random numbers"].split()
"""Ops that draw anew at every run, unless they have a seed."""


def prove(tracing: Tracing, keep: Keep, pruned: ir.Model, seed: int = 0) -> Equality:
    """Runs the pruned model, and holds it against the masked original.

    Dims that a normalisation or a mean runs over (cut only where that was asked for) are left out of the comparison,
    since there it cannot hold; the model with them cut is run all the same.

    Returns:
        How far the two are apart; infinitely where onnxruntime refuses the cut model.

    Raises:
        ModelError: onnxruntime does not load or run the original either.
    """
    shapes, runs, floor = tracing.measured.inputs, RUNS, 1e-6
    big = is_big(tracing)
    if big:
        tracing, keep = rank_one(tracing, keep)
        pruned, runs, floor = cut(tracing, keep), 1, float(np.finfo(np.float32).tiny)
    feeds = [random_feed(tracing.model, shapes, seed + k) for k in range(runs)]
    if big:
        feeds = [positive(feed) for feed in feeds]
    exact = {dim: mask for dim, mask in keep.items() if dim.inexact is None}
    reference = session(masked(tracing, exact), optimize=not big)
    try:
        if len(exact) < len(keep):
            run(session(pruned, optimize=not big), feeds[0])
            pruned = cut(tracing, exact)
        return compare_runs(reference, session(pruned, optimize=not big), feeds, floor)
    except ModelError as error:
        run(reference, feeds[0])  # raises where it is the original that does not run
        return Equality(math.inf, str(error), 0)


def inexact_dims(tracing: Tracing, keep: Keep, seed: int = 0) -> list[Dim]:
    """The Dims that remain when as many as possible are cut of which the joint cut is exact; found by halving.

    Large groups are tried first. A proof costs some runs of the model: after as many as `WORK` allows, what is not
    absolved remains. Of a model that draws random numbers no two runs agree, and all remain.

    Raises:
        ValidationError: The cut model is wrong although no Dim makes it so.
    """
    if draws(tracing.model):
        return list(keep)
    proofs = WORK // max(1, macs(tracing.model, tracing.measured.shapes))
    proofs = min(max(proofs, LEAST_PROOFS), MOST_PROOFS)
    exact: dict[Dim, np.ndarray] = {}
    guilty: list[Dim] = []
    groups = _halves(list(keep))
    for group in groups:  # grows meanwhile
        part = {**exact, **{dim: keep[dim] for dim in group}}
        if proofs > 0 and prove(tracing, part, cut(tracing, part), seed).holds:
            exact = part
        elif proofs <= 0 or len(group) == 1:
            guilty += group
        else:
            groups += _halves(group)
        proofs -= 1
    if not guilty:
        raise ValidationError(
            "cutting is not the same as masking for this model, and no single Dim is to blame; nothing was written"
        )
    return guilty


def draws(model: ir.Model) -> bool:
    """Whether a model draws random numbers, others at every run."""
    return any(
        node.op_type in RANDOM and "seed" not in node.attributes for node in model.graph.all_nodes()
    )


def _halves(dims: list[Dim]) -> list[list[Dim]]:
    half = len(dims) // 2
    return [part for part in (dims[:half], dims[half:]) if part]
