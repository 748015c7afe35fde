"""Where a model can be taken apart into blocks that follow each other.

A value is a cut point if everything that trained weights have a part in passes through it: of what was computed
before it from any of them, nothing but the value itself is read after it (an articulation of the graph). Outputs of
residual blocks, of inception modules and of plain layers are such values, those within a residual block are not.
Nodes stand in topological order, so one pass over the places between two nodes finds them all.

Between two cut points lies a block, a model of its own: it takes the first value (and inputs of the model, where it
reads any) and gives the second. A block has some layers, for what several do together can be learned better than what
each does alone, and a model some blocks, for what is inside the original tells more than its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.graph import clone
from onnxprune.graph.flow import last_uses, read_values
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure

__all__ = ["Block", "Kept", "blocks_of", "comparable", "extract", "own_inputs"]

LEAST, PARTS = 9, 3
"""Weights with two and more axes that a block has at least; fewer where they would make less than so many blocks."""


Kept = Mapping[str, Sequence[np.ndarray]]
"""Value name to the places along each axis that are left in the pruned model."""


@dataclass(frozen=True)
class Block:
    """A part of a model.

    Attributes:
        takes: Name of the cut point that it begins with; None: only the model's inputs.
        gives: Names of what it computes: a cut point, of the last block the model's outputs.
        weights: Names of the trained weights in it.
    """

    takes: str | None
    gives: tuple[str, ...]
    weights: tuple[str, ...]


def blocks_of(
    model: ir.Model, trained: Mapping[str, int], comparable: Collection[str]
) -> list[Block]:
    """The blocks of a model, in order; together they hold all trained weights.

    Args:
        model: The model, without local functions.
        trained: Names of the weights that are trained, with their numbers of axes.
        comparable: Names of the values that may be cut points.
    """
    graph = model.graph
    last = last_uses(graph)
    left = sum(rank > 1 for rank in trained.values())
    least = max(1, min(LEAST, left // PARTS))
    made_of_weights: set[ir.Value] = set()
    alive: set[ir.Value] = set()
    found: list[Block] = []
    takes: str | None = None
    held: dict[str, None] = {}
    for place, node in enumerate(graph):
        read = list(read_values(node))
        held.update((value.name or "", None) for value in read if value.name in trained)
        if any(value in made_of_weights or value.name in trained for value in read):
            made_of_weights.update(node.outputs)
            alive.update(node.outputs)
        alive = {value for value in alive if last[value] > place}
        size = sum(trained[name] > 1 for name in held)
        if len(alive) != 1 or not least <= size < left:
            continue
        (value,) = alive
        if value in node.outputs and value.name in comparable and not value.is_graph_output():
            found.append(Block(takes, (value.name or "",), tuple(held)))
            takes, held, left = value.name, {}, left - size
    ends = tuple(value.name or "" for value in graph.outputs)
    return [*found, Block(takes, ends, tuple(held))] if held else found


def extract(
    model: ir.Model, takes: str | None, gives: Collection[str], values: Mapping[str, np.ndarray]
) -> ir.Model:
    """The part of a model between two cut points, as a model whose axis of samples is open.

    Args:
        model: A model whose weights are no inputs (see `own_inputs`); left as it is.
        takes: Name of a cut point, or None.
        gives: Names of what is to be computed.
        values: What the cut point holds, with the samples along axis 0.

    Raises:
        ValueError: The values do not bound a part of the model.
    """
    names = [value.name or "" for value in model.graph.inputs]
    begin = [*names, *([takes] if takes is not None else [])]
    graph = ir.convenience.extract(model.graph, begin, list(gives))
    for value in list(graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)
    for value in graph.outputs:
        value.shape = None
    for value in graph.inputs:
        if takes is not None and value.name == takes:
            array = values[takes]
            value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
            value.shape = ir.Shape([None, *array.shape[1:]])
    return ir.Model(graph, ir_version=model.ir_version)


def own_inputs(model: ir.Model) -> ir.Model:
    """A copy whose inputs are no weights, as files of IR version 3 have them."""
    copy = clone(model)
    for value in list(copy.graph.initializers.values()):
        if value.is_graph_input():
            copy.graph.inputs.remove(value)
            copy.graph.initializers[value.name or ""] = value
    copy.ir_version = max(copy.ir_version or 0, 4)
    return copy


def comparable(student: ir.Model, teacher: ir.Model, data: Dataset, kept: Kept) -> dict[str, int]:
    """The values of the student that can be held against the teacher's, and their bytes by sample.

    Args:
        student: The pruned model.
        teacher: The original.
        data: Samples, to learn shapes from.
        kept: Of the values that have lost places, those that are left; others must be of the same shape.
    """
    one = data.shapes_of_one
    two = {name: (2, *shape[1:]) for name, shape in one.items()}
    ours, original, doubled = (
        {value.name: shape for value, shape in measure(model, shapes).shapes.items()}
        for model, shapes in ((student, one), (teacher, one), (student, two))
    )
    found = {}
    for name, shape in ours.items():
        if not name or not shape:
            continue
        theirs = original.get(name)
        if theirs is not None and name in kept:
            theirs = tuple(len(places) for places in kept[name])
        if shape == theirs and shape[0] == 1 and doubled.get(name) == (2, *shape[1:]):
            found[name] = 4 * math.prod(shape)
    return found
