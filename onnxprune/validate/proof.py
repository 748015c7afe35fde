"""The proof of a cut, and the search for what spoils it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, Keep, Tracing, cut
from onnxprune.errors import ModelError, ValidationError
from onnxprune.runtime.inputs import random_feed
from onnxprune.runtime.sessions import run, session
from onnxprune.validate.equality import Equality, compare_runs, masked
from onnxprune.validate.rank_one import is_big, positive, rank_one

__all__ = ["inexact_dims", "prove"]

RUNS = 2
"""Random inputs that a cut is proven on; a very large model is run once."""


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
    """The Dims whose cut alone, or together with others, is not what masking them gives; found by halving.

    Raises:
        ValidationError: The cut model is wrong although no Dim by itself makes it so.
    """
    guilty = _search(tracing, keep, list(keep), seed)
    if not guilty:
        raise ValidationError(
            "cutting is not the same as masking for this model, and no single Dim is to blame; nothing was written"
        )
    return guilty


def _search(tracing: Tracing, keep: Keep, dims: Sequence[Dim], seed: int) -> list[Dim]:
    part = {dim: keep[dim] for dim in dims}
    if prove(tracing, part, cut(tracing, part), seed).holds:
        return []
    if len(dims) == 1:
        return list(dims)
    half = len(dims) // 2
    found = _search(tracing, keep, dims[:half], seed) + _search(tracing, keep, dims[half:], seed)
    return found or list(dims)
