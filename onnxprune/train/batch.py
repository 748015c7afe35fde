"""Models that fix their batch, made to take any: a step of training sees more than one sample then.

Exporters write the number of samples into the inputs' shapes and into the Reshapes behind them. In a copy the first
is left open, and a constant shape that begins with it begins with 0 (as the input has it), or -1 where another size
is not to be worked out. Whether that is the same model is not argued but tried: two samples together must give what
each gives alone. If they do not, the model stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import clone, constant
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session

__all__ = ["opened"]

TOLERANCE = 1e-4
"""Largest difference, relative to the largest number, between samples together and alone."""


def opened(models: Sequence[ir.Model], data: Dataset) -> tuple[list[ir.Model] | None, Dataset]:
    """Copies that take any number of samples, and the data for them; None where one has no such copy.

    Args:
        models: Models without local functions, that take the same data.
        data: Samples for them.
    """
    if data.fixed_batch is None or len(data) < 2 * data.fixed_batch:
        return None, data
    copies = [_opened(model, data) for model in models]
    for model, copy in zip(models, copies, strict=True):
        if not _agrees(model, copy, data, data.fixed_batch):
            return None, data
    return copies, replace(data, fixed_batch=None)


def _opened(model: ir.Model, data: Dataset) -> ir.Model:
    copy = clone(model)
    for value in copy.graph.inputs:
        if value.name in data.inputs and value.shape is not None:
            value.shape = ir.Shape([None, *value.shape.dims[1:]])
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
        if node.op_type == "Reshape" and not node.domain:
            _open_reshape(copy, node, data.fixed_batch or 1)
    return copy


def _open_reshape(model: ir.Model, node: ir.Node, batch: int) -> None:
    shape = node.inputs[1]
    tensor = constant(shape) if shape is not None else None
    if tensor is None or not tensor.size or int(tensor.numpy()[0]) != batch:
        return
    sizes = tensor.numpy().copy()
    sizes[0] = 0 if (sizes == -1).any() else -1
    name = f"{node.outputs[0].name}/open_shape"
    made = ir.node("Constant", [], {"value": ir.Tensor(sizes, name=name)})
    made.outputs[0].name = name
    model.graph.insert_before(node, made)
    node.replace_input_with(1, made.outputs[0])


def _agrees(model: ir.Model, copy: ir.Model, data: Dataset, batch: int) -> bool:
    both = {name: array[: 2 * batch] for name, array in data.inputs.items()}
    parts = [
        run(session(model), {n: a[k : k + batch] for n, a in both.items()}) for k in (0, batch)
    ]
    try:
        together = run(session(copy), both)
    except ModelError:
        return False
    return all(_equal(a, b, c) for a, b, c in zip(*parts, together, strict=True))


def _equal(first: np.ndarray, second: np.ndarray, together: np.ndarray) -> bool:
    if not isinstance(together, np.ndarray) or together.ndim == 0:
        return False
    apart = np.concatenate([first, second])
    if apart.shape != together.shape:
        return False
    return bool(np.abs(apart - together).max() <= TOLERANCE * max(np.abs(apart).max(), 1e-30))
