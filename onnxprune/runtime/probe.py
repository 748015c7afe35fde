"""A graph that gives back the shapes of its values and its shape arithmetic, read off a run in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import constant
from onnxprune.graph.flow import bodies_by_node, outer_values
from onnxprune.runtime.bodies import as_model, body_feed
from onnxprune.runtime.sessions import run, session
from onnxprune.runtime.stand_ins import stand_ins

__all__ = ["Measured", "Probe", "is_small", "shape_arithmetic"]

FOLLOWED = frozenset(
    """
    Abs Add And Cast Ceil Concat ConstantOfShape Div Equal Expand Flatten Floor Gather Greater GreaterOrEqual
    Identity Less LessOrEqual Max Min Mod Mul Neg Not Or Pad Range ReduceMax ReduceMin ReduceProd ReduceSum Reshape
    Shape Size Slice Split Sqrt Squeeze Sub Tile Transpose Unsqueeze Where
    """.split()  # noqa: SIM905  (a table of names reads better as words)
)
"""Ops that shape arithmetic is made of."""
LARGEST_FOLLOWED = 65536
"""Constants of more elements are no part of shape arithmetic."""


@dataclass
class Measured:
    """What one run showed.

    Attributes:
        shapes: The shape of every tensor that was seen, weights included.
        values: Results of shape arithmetic (values computed from constants and shapes alone).
        fixed: Which of their elements are the same whatever the sizes of the inputs.
        inputs: The shapes fed.
        untold: Open axes of inputs, by name and place, at no other size of which the model ran.
        failed: How many bodies of If, Loop and Scan could not be run on their own.
    """

    shapes: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)
    values: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    fixed: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    untold: set[tuple[str, int]] = field(default_factory=set)
    failed: int = 0

    def take(self, other: Measured) -> None:
        """Adds what another run showed."""
        self.shapes.update(other.shapes)
        self.values.update(other.values)
        self.fixed.update(other.fixed)

    def shapes_in(self, model: ir.Model) -> dict[ir.Value, tuple[int, ...]]:
        """The shapes of values of a model that was made from this one, where they have kept their names."""
        by_name = {value.name: shape for value, shape in self.shapes.items()}
        values = [output for node in model.graph.all_nodes() for output in node.outputs]
        return {
            value: by_name[value.name]
            for value in (*model.graph.inputs, *values)
            if value.name in by_name
        }

    def elements(self, value: ir.Value | None) -> list[int | None] | None:
        """The elements of an integer value, flat, None for each that changes; None where they come from data."""
        if value is None or value not in self.values:
            return None
        pairs = zip(self.values[value].flat, self.fixed[value].flat, strict=True)
        return [int(n) if fixed else None for n, fixed in pairs]


class Probe:
    """A graph as a model of its own that gives back the shapes of its values and its shape arithmetic."""

    def __init__(
        self, graph: ir.Graph, owner: ir.Model, outer: Mapping[ir.Value, np.ndarray] | None = None
    ) -> None:
        self.owner, self.graph, self.outer = owner, graph, dict(outer or {})
        self.model, self.captured = as_model(graph, owner, self.outer)
        copies = {
            original: copy
            for node, twin in zip(graph, self.model.graph, strict=True)
            for original, copy in zip(node.outputs, twin.outputs, strict=True)
            if original.name
        }
        self.twins = {
            original: copy for original, copy in copies.items() if not _no_tensor(original)
        }
        arithmetic = shape_arithmetic(graph)
        wanted = {value for _, body in bodies_by_node(graph) for value in outer_values(body)}
        wanted |= {
            value for node, _ in bodies_by_node(graph) for value in node.inputs if value is not None
        }
        self.read_whole = [v for v in self.twins if v in arithmetic or v in wanted]
        self.names = self._add_outputs()
        stand_ins(self.model)
        self.session = session(self.model, optimize=False)

    def _add_outputs(self) -> dict[ir.Value, str]:
        graph, names = self.model.graph, dict[ir.Value, str]()
        graph.outputs.clear()
        whole = set(self.read_whole)
        for k, (original, copy) in enumerate(self.twins.items()):
            copy.shape = None  # onnxruntime would reuse buffers by what an annotation says
            if original in whole:
                graph.outputs.append(copy)
                names[original] = copy.name or ""
            else:
                node = ir.Node("", "Shape", [copy], num_outputs=1)
                node.outputs[0].name = names[original] = f"onnxprune/shape/{k}"
                graph.append(node)
                graph.outputs.append(node.outputs[0])
        return names

    def read(self, feed: Mapping[str, np.ndarray], into: Measured) -> None:
        """Runs once and notes what came."""
        feed = {**feed, **self.captured}
        results = run(self.session, feed, list(self.names.values())) if self.names else []
        arithmetic, whole = shape_arithmetic(self.graph), dict(self.outer)
        for value, result in zip(self.names, results, strict=True):
            if value not in self.read_whole:
                into.shapes[value] = tuple(int(n) for n in result)
                continue
            if not isinstance(result, np.ndarray):
                continue
            into.shapes[value] = result.shape
            whole[value] = result
            if value in arithmetic:
                into.values[value] = result
                into.fixed[value] = np.ones(result.shape, bool)
        for value in self.graph.inputs:
            if value.name in feed:
                into.shapes[value] = feed[value.name].shape
                whole[value] = feed[value.name]
        for node, body in bodies_by_node(self.graph):
            self.read_body(node, body, whole, into)

    def read_body(
        self, node: ir.Node, body: ir.Graph, known: Mapping[ir.Value, np.ndarray], into: Measured
    ) -> None:
        """Runs a body on what it captures; one that cannot be run alone stays unmeasured, and so frozen."""
        try:
            probe = Probe(body, self.owner, known)
            probe.read(body_feed(node, body, known), into)
        except ModelError:
            into.failed += 1


def shape_arithmetic(graph: ir.Graph) -> set[ir.Value]:
    """Values computed from shapes and small integer constants alone, and what small constants make of those."""
    found: set[ir.Value] = set()
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type in ("Shape", "Size"):
            found.update(node.outputs)
        elif node.op_type in FOLLOWED and inputs:
            known = all(v in found or _small_constant(v) for v in inputs)
            if known and (any(v in found for v in inputs) or all(map(_integer_constant, inputs))):
                found.update(node.outputs)
    return found


def _integer_constant(value: ir.Value) -> bool:
    tensor = constant(value)
    return tensor is not None and tensor.dtype.is_integer()


def _small_constant(value: ir.Value) -> bool:
    tensor = constant(value)
    return tensor is not None and is_small(tuple(tensor.shape.numpy()))


def is_small(shape: tuple[int, ...]) -> bool:
    """Whether a constant of that shape may be part of shape arithmetic."""
    return int(np.prod(shape, dtype=np.int64)) <= LARGEST_FOLLOWED


def _no_tensor(value: ir.Value) -> bool:
    """Whether a value holds a sequence, an optional or a map."""
    if value.type is not None and not isinstance(value.type, ir.TensorType):
        return True
    node = value.producer()
    return node is not None and (
        node.op_type.startswith(("Sequence", "Optional", "ZipMap", "SplitToSequence"))
        and node.op_type
        not in ("SequenceAt", "SequenceLength", "OptionalHasElement", "OptionalGetElement")
    )
