"""How far the outputs of models are from those of one original, on some samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.scores.distance import Reference

__all__ = ["Outputs"]

BATCH = 8


class Outputs:
    """What the original says to the samples.

    Args:
        original: The model that others are held against.
        data: The samples.
        providers: onnxruntime providers by name.
    """

    def __init__(self, original: ir.Model, data: Dataset, providers: Sequence[str]) -> None:
        self.data, self.providers = data, providers
        self.reference = Reference(self._of(original))

    def moved(self, model: ir.Model) -> float:
        """How far a model's outputs are from those, see `Reference.moved`."""
        return self.reference.moved(self._of(model))

    def _of(self, model: ir.Model) -> Iterator[list[np.ndarray]]:
        made = session(model, self.providers)
        for feed in self.data.batches(BATCH):
            every = [array for array in run(made, feed) if isinstance(array, np.ndarray)]
            yield [array for array in every if array.dtype.kind == "f" and array.ndim]
