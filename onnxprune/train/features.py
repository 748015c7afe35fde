"""Following the original inside too: its values at the cut points become part of the loss of the whole model.

For each value v where the model falls into blocks, and that can be held against the original's t, there is added

    w / n  E |v - t|^2 / Var t          n such values, w the weight asked for

which is the last step's loss of blocks learned one by one, now for all of them together.

Source: Romero et al., "FitNets", ICLR 2015, arXiv:1412.6550.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import SquaredError, Weighted
from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train.blocks import Kept, blocks_of, comparable, own_inputs
from onnxprune.train.objective import TEACHER, Objective
from onnxprune.train.trainable import trainable

__all__ = ["with_features"]

SAMPLES = 16
"""How many the variances are taken from."""


def with_features(
    goal: Objective,
    model: ir.Model,
    teacher: ir.Model,
    data: Dataset,
    weight: float,
    kept: Kept | None = None,
) -> tuple[Objective, ir.Model]:
    """The objective with the distances at cut points added, and a teacher that tells its values there.

    Args:
        goal: What is made small already.
        model: The model to train, without local functions.
        teacher: The original, likewise.
        data: Samples.
        weight: Of all the distances together.
        kept: Where channels were removed, which are left.

    Raises:
        DataError: The model has no value that could be compared.
    """
    kept = kept or {}
    student, told = own_inputs(model), own_inputs(teacher)
    chosen = {each.name: len(each.shape) for each in trainable(student)}
    blocks = blocks_of(student, chosen, comparable(student, told, data, kept))
    names = [name for block in blocks[:-1] for name in block.gives]
    if not names:
        raise DataError(
            "no value inside the model has the original's shape: train without features"
        )
    values = {value.name: value for node in told.graph for value in node.outputs}
    heard = {name: _heard(told, values[name], kept) for name in names}
    rows = next(data.batch_rows(SAMPLES))
    seen = run(session(told), data.feed(rows), list(heard.values()))
    terms, extra = [(1.0, goal.loss)], {}
    for name, array in zip(names, seen, strict=True):
        scale = weight / len(names) / max(float(np.var(array, dtype=np.float64)), 1e-30)
        extra[heard[name]] = f"{TEACHER}{name}"
        terms.append((scale, SquaredError(name, target=f"{TEACHER}{name}")))
    words = f"{goal.words} and from {len(names)} of its values"
    return Objective(Weighted(tuple(terms)), goal.labels, {**goal.teacher, **extra}, words), told


def _heard(teacher: ir.Model, value: ir.Value, kept: Kept) -> str:
    """The name of a new output of the teacher: the value at the places that are left."""
    name = value.name or ""
    for axis, places in enumerate(kept.get(name, ())):
        if axis:
            indices = ir.Tensor(places.astype(np.int64))
            table = ir.node("Constant", [], {"value": indices})
            taken = ir.node("Gather", [value, table.outputs[0]], {"axis": axis})
            teacher.graph.extend([table, taken])
            table.outputs[0].name = f"{name}/places{axis}"
            value = taken.outputs[0]
            value.name = f"{name}/left{axis}"
    if not value.is_graph_output():
        value.shape = None
        teacher.graph.outputs.append(value)
    return value.name or ""
