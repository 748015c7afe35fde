"""The shape of every value of a model, and the integers among them that never change, read off a real run.

Shape inference stops at ops it does not know and believes stale annotations; onnxruntime cannot be wrong about what it
computed. So a `Shape` node is put behind every value and the model is run once. Bodies of If, Loop and Scan are run on
their own, on what they capture. A second run with other sizes for the open axes of the inputs tells the integers that
depend on them.

Where the weights are large, stand-ins of the same shape that onnxruntime makes while it runs take their place: their
values do not matter here, and no gigabyte is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import clone, constant, weights
from onnxprune.runtime.inputs import (
    Shapes,
    candidate_shapes,
    graph_inputs,
    random_feed,
    running_shapes,
)
from onnxprune.runtime.sessions import run, session

__all__ = ["Measured", "insert_before_use", "measure", "stand_ins"]

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
MOST_RUNS = 4
"""Shapes of the inputs on which the model runs, tried in search of one on which every body runs alone."""
MOST_TRIES = 64
"""Shapes of the inputs tried for a body that ran on none of those."""
BIG_MODEL = 32 << 20
"""With more bytes of weights than this, stand-ins take the place of those over `BIG_WEIGHT` bytes."""
BIG_WEIGHT = 64 << 10


@dataclass
class Measured:
    """What one run showed.

    Attributes:
        shapes: The shape of every tensor that was seen, weights included.
        values: Results of shape arithmetic (values computed from constants and shapes alone).
        fixed: Which of their elements are the same whatever the sizes of the inputs.
        inputs: The shapes fed.
        failed: How many bodies of If, Loop and Scan could not be run on their own.
    """

    shapes: dict[ir.Value, tuple[int, ...]] = field(default_factory=dict)
    values: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    fixed: dict[ir.Value, np.ndarray] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    failed: int = 0

    def take(self, other: Measured) -> None:
        """Adds what another run showed."""
        self.shapes.update(other.shapes)
        self.values.update(other.values)
        self.fixed.update(other.fixed)

    def constant(self, value: ir.Value) -> np.ndarray | None:
        """The elements of an integer value, flat, where none of them ever changes; None otherwise."""
        known = self.values.get(value)
        if known is None or known.dtype.kind not in "iub" or not self.fixed[value].all():
            return None
        return known.reshape(-1)


def measure(model: ir.Model, shapes: Shapes | None = None) -> Measured:
    """Runs the model once (twice where inputs have open axes) and reads off what it did.

    Args:
        model: A model without local functions. It is not changed.
        shapes: Shapes for some inputs, by name; the others are found by trying.

    Raises:
        ModelError: onnxruntime does not load the model, or runs it on no shapes that were tried.
    """
    probe = _Probe(model.graph, model)
    measured = _first_run(probe, shapes)
    followed = bool(measured.values)
    for weight in weights(model):
        measured.shapes[weight.value] = weight.shape
        if (
            weight.kind != "constant_of_shape"
            and _small(weight.shape)
            and weight.dtype.is_integer()
        ):
            array = weight.array()
            measured.values[weight.value] = array
            measured.fixed[weight.value] = np.ones(array.shape, bool)
    for other in _other_shapes(model, measured.inputs) if followed else ():
        try:
            second = Measured()
            probe.read(random_feed(probe.model, other, 0), second)
        except ModelError:
            continue
        for value, first in measured.values.items():
            array = second.values.get(value, first)
            same = first == array if first.shape == array.shape else np.zeros(first.shape, bool)
            measured.fixed[value] = measured.fixed[value] & same
        break
    return measured


def _first_run(probe: _Probe, shapes: Shapes | None) -> Measured:
    """The run on the first shapes that work; bodies that failed on them are tried on others, captured inputs alone."""
    best: Measured | None = None
    measured = Measured()

    def attempt(feed: dict[str, np.ndarray]) -> None:
        nonlocal measured
        measured = Measured()
        probe.read(feed, measured)

    for found in islice(running_shapes(probe.model, shapes, attempt), MOST_RUNS):
        measured.inputs = found
        if best is None or measured.failed < best.failed:
            best = measured
        if not best.failed:
            return best
    assert best is not None
    inputs = {value.name: value for value in probe.graph.inputs}
    for node, body in _bodies_by_node(probe.graph):
        known = _unseen(body, best)
        tries = (
            random_feed(probe.model, other, 0)
            for other in candidate_shapes(probe.model, shapes or {})
        )
        for feed in islice(tries, MOST_TRIES) if known else ():
            other = Measured()
            probe.read_body(
                node, body, {inputs[name]: array for name, array in feed.items()}, other
            )
            if _unseen(body, other) < known:
                known = _unseen(body, other)
                best.take(other)
            if not known:
                break
    return best


def _unseen(body: ir.Graph, measured: Measured) -> int:
    """How many values of a body and of those inside it were not measured."""
    graphs = (body, *body.subgraphs())
    return sum(
        v not in measured.shapes
        for graph in graphs
        for node in graph
        for v in node.outputs
        if v.name
    )


def stand_ins(model: ir.Model, fill: float = 0.01) -> None:
    """Exchanges the big weights of a big model for ConstantOfShape nodes of the same shape, in place."""
    graph = model.graph
    held = [w for w in weights(model) if w.kind == "initializer" and w.graph is graph]
    if sum(weight.nbytes for weight in held) <= BIG_MODEL:
        return
    for weight in held:
        if weight.nbytes <= BIG_WEIGHT or not weight.dtype.is_floating_point():
            continue
        value, shape = weight.value, np.array(weight.shape, np.int64)
        filler = ir.tensor(np.full(1, fill, weight.dtype.numpy()), dtype=weight.dtype)
        graph.initializers.pop(weight.name)
        if value in graph.inputs:
            graph.inputs.remove(value)
        value.const_value = None
        sizes = ir.Value(name=f"{weight.name}/sizes", const_value=ir.tensor(shape))
        graph.register_initializer(sizes)
        node = ir.Node(
            "", "ConstantOfShape", [sizes], [ir.AttrTensor("value", filler)], outputs=[value]
        )
        insert_before_use(graph, value, [node])


def insert_before_use(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Puts the nodes that make a value just before its first use, so that it is not there for longer than needed."""
    users = {user for user, _ in value.uses()}
    inside = {outer for outer, body in _bodies_by_node(graph) if users & set(body.all_nodes())}
    first = next((node for node in graph if node in users or node in inside), None)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)


class _Probe:
    """A graph as a model of its own that gives back the shapes of its values and its shape arithmetic."""

    def __init__(
        self, graph: ir.Graph, owner: ir.Model, outer: Mapping[ir.Value, np.ndarray] | None = None
    ) -> None:
        self.owner, self.graph = owner, graph
        self.model, self.captured = _as_model(graph, owner, outer or {})
        copies = {
            original: copy
            for node, twin in zip(graph, self.model.graph, strict=True)
            for original, copy in zip(node.outputs, twin.outputs, strict=True)
            if original.name
        }
        self.twins = {
            original: copy for original, copy in copies.items() if not _no_tensor(original)
        }
        followed = _followed(graph)
        wanted = {value for body in _bodies(graph) for value in _outer_values(body)}
        wanted |= {
            value
            for node, _ in _bodies_by_node(graph)
            for value in node.inputs
            if value is not None
        }
        self.read_whole = [v for v in self.twins if v in followed or v in wanted]
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
        followed, whole = _followed(self.graph), dict[ir.Value, np.ndarray]()
        for value, result in zip(self.names, results, strict=True):
            if value not in self.read_whole:
                into.shapes[value] = tuple(int(n) for n in result)
                continue
            if not isinstance(result, np.ndarray):
                continue
            into.shapes[value] = result.shape
            whole[value] = result
            if value in followed:
                into.values[value] = result
                into.fixed[value] = np.ones(result.shape, bool)
        for value in self.graph.inputs:
            if value.name in feed:
                into.shapes[value] = feed[value.name].shape
                whole[value] = feed[value.name]
        for node, body in _bodies_by_node(self.graph):
            self.read_body(node, body, whole, into)

    def read_body(
        self, node: ir.Node, body: ir.Graph, known: Mapping[ir.Value, np.ndarray], into: Measured
    ) -> None:
        """Runs a body on what it captures; one that cannot be run alone stays unmeasured, and so frozen."""
        try:
            probe = _Probe(body, self.owner, known)
            probe.read(_body_feed(node, body, known), into)
        except ModelError:
            into.failed += 1


def _as_model(
    graph: ir.Graph, owner: ir.Model, outer: Mapping[ir.Value, np.ndarray]
) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """The graph as a model; captured values become inputs (given back with what to feed) or initializers."""
    if graph is owner.graph:
        return clone(owner), {}
    copy = graph.clone(allow_outer_scope_values=True)
    feed: dict[str, np.ndarray] = {}
    for value in _outer_values(graph):
        tensor = constant(value)
        new = ir.Value(name=value.name, const_value=tensor)
        if tensor is not None:
            new.dtype, new.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
            copy.register_initializer(new)
        elif value in outer:
            array = outer[value]
            new.dtype, new.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
            copy.inputs.append(new)
            feed[value.name or ""] = array
        else:
            raise ModelError(f"a body captures {value.name!r}, which was not measured")
        for node in copy.all_nodes():
            for i, used in enumerate(node.inputs):
                if used is value:
                    node.replace_input_with(i, new)
    copy.opset_imports.update(owner.opset_imports)
    model = ir.Model(copy, ir_version=owner.ir_version)
    model.meta.update(owner.meta)
    return model, feed


def _body_feed(
    node: ir.Node, body: ir.Graph, known: Mapping[ir.Value, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a body is fed in its first round."""
    given = [None if value is None else _array(value, known) for value in node.inputs]
    if node.op_type == "Loop":
        given[:2] = [np.asarray(0, np.int64), np.asarray(True)]
    elif node.op_type == "Scan":
        states = len(given) - node.attributes["num_scan_inputs"].as_int()
        given = [a if k < states or a is None else a[0] for k, a in enumerate(given)]
    elif node.op_type == "If":
        given = []
    feed = {}
    for value, array in zip(body.inputs, given, strict=False):
        if array is None:
            raise ModelError(f"the input {value.name!r} of a body was not measured")
        feed[value.name or ""] = array
    return feed


def _array(value: ir.Value, known: Mapping[ir.Value, np.ndarray]) -> np.ndarray | None:
    tensor = constant(value)
    return known.get(value) if tensor is None else tensor.numpy()


def _bodies_by_node(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Graph]]:
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                yield node, attribute.as_graph()


def _bodies(graph: ir.Graph) -> Iterator[ir.Graph]:
    return (body for _, body in _bodies_by_node(graph))


def _outer_values(body: ir.Graph) -> list[ir.Value]:
    """Values from outside that a body, or one inside it, uses."""
    inner: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}
    for graph in (body, *body.subgraphs()):
        inner.update(graph.inputs, graph.initializers.values())
        used.update(dict.fromkeys(graph.outputs))
        for node in graph:
            inner.update(node.outputs)
            used.update((value, None) for value in node.inputs if value is not None)
    return [value for value in used if value not in inner]


def _followed(graph: ir.Graph) -> set[ir.Value]:
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
    return tensor is not None and _small(tuple(tensor.shape.numpy()))


def _small(shape: tuple[int, ...]) -> bool:
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


def _other_shapes(
    model: ir.Model, found: Mapping[str, tuple[int, ...]]
) -> Iterator[dict[str, tuple[int, ...]]]:
    """The same with other sizes on the open axes: on all, on the first of each input, on all but those."""

    def doubled(value: ir.Value, which: slice) -> tuple[int, ...]:
        declared = list(value.shape.dims) if value.shape is not None else []
        sizes = list(found[value.name or ""])
        for k in range(len(sizes))[which]:
            known = declared[k]
            if not isinstance(known, int) or known <= 0:
                sizes[k] *= 2
        return tuple(sizes)

    for which in (slice(None), slice(0, 1), slice(1, None)):
        other = {value.name or "": doubled(value, which) for value in graph_inputs(model)}
        if other != dict(found):
            yield other
