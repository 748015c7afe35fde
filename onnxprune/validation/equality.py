"""Cutting equals masking: the proof that a cut is exact.

The model without some channels must give, to float tolerance, what the original gives with the weights of those
channels set to zero. It needs no data and no labels, and holds for any weights; so it is checked on every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.dims import Keep, Tracing, Use, keep_mask
from onnxprune.graph import constant, replace
from onnxprune.graph.edit import Edit
from onnxprune.runtime.inputs import Shapes, random_feed
from onnxprune.runtime.pieces import outputs
from onnxprune.runtime.sessions import run

__all__ = ["RUNS", "Equality", "compare_runs", "largest_error", "masked", "relative_error"]

TOLERANCE = 1e-3
"""Largest relative error, in the Frobenius norm of an output, that float arithmetic in another order may make."""

RUNS = 2
"""Random inputs that two models are compared on; a very large one is run once."""

NOT_MASKED = {
    ("BatchNormalization", 3),
    ("BatchNormalization", 4),
    ("Div", 1),
    ("Mod", 1),
    ("Pow", 1),
}
"""Operands for which zero is no neutral value: they divide, or are variances."""
ZERO_POINT = {
    ("ConvInteger", 1): 3,
    ("DequantizeLinear", 0): 2,
    ("MatMulInteger", 1): 3,
    ("QLinearConv", 3): 5,
    ("QLinearMatMul", 0): 2,
    ("QLinearMatMul", 3): 5,
}
"""Operands that are quantised, with the input that says which integer means zero."""


@dataclass(frozen=True)
class Equality:
    """How far the cut model is from the masked one.

    Attributes:
        error: The largest relative error over outputs and runs.
        output: The output where it was found.
        runs: How many inputs were tried.
    """

    error: float
    output: str
    runs: int

    @property
    def holds(self) -> bool:
        """Whether the error is within `TOLERANCE`."""
        return self.error <= TOLERANCE


def masked(tracing: Tracing, keep: Keep) -> ir.Model:
    """A copy of the model traced in which the indices not kept are zero (the zero point, where quantised)."""
    edit = Edit(tracing.model)
    for use in tracing.uses:
        masks = [keep_mask(axis, keep) for axis in use.axes]
        if all(mask.all() for mask in masks) or _stays(use):
            continue
        array = use.weight.array().copy()
        for k, mask in enumerate(masks):
            array[(slice(None),) * k + (~mask,)] = _zero(use)
        if use.node is None:
            replace(edit.weight[use.weight], array)
        else:
            tensor = ir.Tensor(array, dtype=use.weight.dtype)
            copy = edit.constant(use.weight.graph, f"{use.weight.name}/masked", tensor)
            edit.replace_input(use.node, use.index, copy)
    edit.remove_unused()
    return edit.model


def compare_runs(
    reference: ort.InferenceSession,
    mine: ort.InferenceSession,
    feeds: Sequence[Mapping[str, np.ndarray]],
    floor: float = 1e-6,
) -> Equality:
    """Runs the masked and the cut model on the same inputs, as far as they agree.

    Args:
        reference: A session of the masked model.
        mine: A session of the model after cutting.
        feeds: Input name to array, for each run.
        floor: Added to the norm that an error is relative to, so that outputs of zero can be compared.

    Raises:
        ModelError: onnxruntime does not run one of them.
    """
    worst, where = 0.0, ""
    for feed in feeds:
        outputs = zip(reference.get_outputs(), run(reference, feed), run(mine, feed), strict=True)
        for output, a, b in outputs:
            error = relative_error(a, b, floor)
            if error > worst or not where:
                worst, where = error, output.name
        if worst > TOLERANCE:
            break
    return Equality(worst, where, len(feeds))


def largest_error(before: ir.Model, after: ir.Model, inputs: Shapes, seed: int) -> Equality:
    """How far two models, of any size, are apart on random inputs, node by node as they are written.

    Args:
        before: The model that errors are relative to.
        after: The other one.
        inputs: Shapes of their inputs, by name.
        seed: Of the inputs.

    Raises:
        ModelError: onnxruntime does not run one of them.
    """
    feeds = [random_feed(before, inputs, seed + k) for k in range(RUNS)]
    worst, where = 0.0, ""
    pairs = [outputs(model, feeds, optimize=False) for model in (before, after)]
    for first, second in zip(*pairs, strict=True):
        for output, a, b in zip(before.graph.outputs, first, second, strict=True):
            error = relative_error(a, b)
            if error > worst or not where:
                worst, where = error, output.name or ""
    return Equality(worst, where, RUNS)


def relative_error(reference: object, other: object, floor: float = 1e-6) -> float:
    """||a - b|| / ||a|| of two tensors (the share of unequal elements of integers); infinite where shapes differ."""
    if not isinstance(reference, np.ndarray) or not isinstance(other, np.ndarray):
        return 0.0 if type(reference) is type(other) else float("inf")
    if reference.shape != other.shape:
        return float("inf")
    if reference.size == 0:
        return 0.0
    if reference.dtype.kind not in "fV":
        return float(np.mean(reference != other))
    a, b = reference.astype(np.float64), other.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)):
        return float("inf")
    a, b = a[finite], b[finite]
    return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + floor))


def _stays(use: Use) -> bool:
    """Whether masking must leave a weight alone: it divides, or holds sizes or indices."""
    if use.node is not None and (use.node.op_type, use.index) in NOT_MASKED:
        return True
    return use.weight.dtype in (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)


def _zero(use: Use) -> int:
    """The value that means zero."""
    if use.node is None:
        return 0
    index = ZERO_POINT.get((use.node.op_type, use.index))
    value = use.node.inputs[index] if index is not None and index < len(use.node.inputs) else None
    tensor = constant(value) if value is not None else None
    return int(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size else 0
