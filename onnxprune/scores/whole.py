"""Criteria that score whole indices of Dims and have no saliency of single elements."""

from __future__ import annotations

from onnxprune.errors import OptionError
from onnxprune.scores.criterion import Array, Context, criterion

__all__: list[str] = []


@criterion(
    "obs",
    summary="second-order loss of a channel after re-fitting the others",
    needs_data=True,
    scores="channels",
)
def _obs(_name: str, _values: Array, _context: Context) -> Array:
    raise OptionError(
        "the criterion obs scores channels, not single weights: see `onnxprune.scores.obs`"
    )
