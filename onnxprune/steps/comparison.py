"""Holding the pruned model against the original."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import onnx_ir as ir

from onnxprune.errors import ValidationError
from onnxprune.graph.cost import nbytes
from onnxprune.graph.load import SOURCE
from onnxprune.options import PruneOptions
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.inputs import Shapes, random_feed, running_shapes
from onnxprune.runtime.measure import Measured
from onnxprune.runtime.synthetic import synthetic
from onnxprune.validation.compare import Comparison, compare

__all__ = ["compared", "random_inputs", "samples"]

LARGEST_COMPARED = 1 << 30
"""Models with more bytes of weights than this are not run for drift and latency."""
MADE_UP = Path("synthetic")
"""What `--data` says where samples are to be made up."""
MADE_UP_COMPARED = 16
"""Made-up samples that models are compared on: more of them tell no more of real ones."""
RANDOM_INPUTS = 2
"""Inputs that models are compared on where the user gives none."""


def samples(options: PruneOptions, model: ir.Model) -> Dataset | None:
    """The samples that the options name, read or made up; None where they name none.

    Raises:
        DataError: They cannot be read, or do not fit the model.
    """
    if options.data is None:
        return None
    if options.data == MADE_UP:
        return synthetic(model, options.seed, options.shapes)
    return read_data(options.data, model)


def random_inputs(
    model: ir.Model, measured: Measured | None, seed: int, shapes: Shapes | None = None
) -> list[dict[str, Any]]:
    """Feeds of seeded random inputs, of the shapes measured on or of shapes found by trying."""
    found = measured.inputs if measured is not None else next(running_shapes(model, shapes))
    return [random_feed(model, found, seed + k) for k in range(RANDOM_INPUTS)]


def compared(
    original: ir.Model,
    after: Path | ir.Model,
    feeds: Dataset | list[dict[str, Any]],
    options: PruneOptions,
    repaired: bool = False,
) -> Comparison | None:
    """Drift, accuracy and latency against the original; None where nobody asked, or it is too large to run.

    Raises:
        ValidationError: A repaired model gives NaN or infinities where the original gives numbers.
    """
    if nbytes(original) > LARGEST_COMPARED or not (options.check_drift or options.check_latency):
        return None
    if options.data == MADE_UP and isinstance(feeds, Dataset):
        feeds = feeds.take(MADE_UP_COMPARED)
    found = compare(
        original.meta[SOURCE],
        after,
        feeds,
        providers=options.providers,
        seconds=2.0 if options.check_latency else 0.0,
    )
    broken = [each.output for each in found.drift if math.isinf(each.max_abs)]
    if broken and repaired:
        raise ValidationError(
            f"after --recover {options.recover} the output {broken[0]!r} is not finite where the original's is;"
            " nothing was written: use --recover none, or more samples"
        )
    return found
