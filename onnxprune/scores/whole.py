"""Criteria that score whole channels or layers and have no saliency of single elements."""

from __future__ import annotations

from onnxprune.errors import OptionError
from onnxprune.scores.criterion import Array, Context, criterion

__all__: list[str] = []


@criterion(
    "obs",
    summary="second-order loss of a channel or weight after re-fitting the others",
    needs_data=True,
)
def _obs(_name: str, _values: Array, _context: Context) -> Array:
    raise OptionError(
        "the criterion obs ranks no weights alone: see `onnxprune.scores.obs` and `onnxprune.recover.sparse`"
    )


@criterion(
    "outputs",
    summary="how far the model's outputs move without a layer",
    needs_data=True,
    scores="layers",
)
def _outputs(_name: str, _values: Array, _context: Context) -> Array:
    raise OptionError("the criterion outputs ranks layers: see `onnxprune.plan.layers`")
