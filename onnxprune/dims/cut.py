"""Cutting: a new model without the indices that are not kept.

Every weight is sliced by evaluating its axes (lazily: nothing is read before the model is saved or run), every integer
that follows is rewritten, and annotated shapes are brought up to date. The model traced is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Dim, keep_mask
from onnxprune.dims.carriers import (
    AttributeSizes,
    AttributeValue,
    Carrier,
    InputIndices,
    InputSizes,
    PinnedShape,
    new_edge,
    new_size,
    size_changes,
)
from onnxprune.dims.trace import Tracing, Use
from onnxprune.graph import Weight, clone, replace, weights

__all__ = ["Keep", "Twins", "by_weight", "cut", "removed"]

Keep = Mapping[Dim, np.ndarray]
Masks = tuple[np.ndarray, ...]

EAGER_BYTES = 1 << 16
"""Slices of weights up to this size are made at once; larger ones when the model is written or run."""


def cut(tracing: Tracing, keep: Keep) -> ir.Model:
    """The model without the indices that are not kept.

    Args:
        tracing: What `trace` found.
        keep: A boolean array of shape (dim.size,) for every Dim that loses indices, at least one of them kept.

    Returns:
        A new model; its large weights are slices that are taken when they are read.
    """
    twins = Twins(tracing.model)
    editor = _Editor(tracing, keep, twins)
    for weight, uses in by_weight(tracing).items():
        editor.cut_weight(weight, uses)
    for carrier in tracing.carriers:
        editor.follow(carrier)
    editor.update_shapes()
    editor.remove_unused()
    return twins.model


def removed(tracing: Tracing, keep: Keep) -> dict[str, dict[str, list[int]]]:
    """What is removed, as tensor name -> axis -> indices: the plan's format.

    A tensor whose uses are cut differently is not in it: each of them gets a copy of its own, under a new name.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for weight, uses in by_weight(tracing).items():
        groups = {_key(masks) for masks in (_masks(use.axes, keep) for use in uses)}
        masks = _masks(uses[0].axes, keep)
        if len(groups) == 1 and not all(mask.all() for mask in masks):
            found[weight.name] = {
                str(k): np.flatnonzero(~mask).tolist() for k, mask in enumerate(masks) if not mask.all()
            }
    return found


def by_weight(tracing: Tracing) -> dict[Weight, list[Use]]:
    """The uses of every weight that is used."""
    found: dict[Weight, list[Use]] = {}
    for use in tracing.uses:
        found.setdefault(use.weight, []).append(use)
    return found


class Twins:
    """A copy of a model, and which of its parts is the copy of what."""

    def __init__(self, model: ir.Model) -> None:
        self.model = clone(model)
        pairs = list(zip(model.graph.all_nodes(), self.model.graph.all_nodes(), strict=True))
        self.node = dict(pairs)
        self.value: dict[ir.Value, ir.Value] = {}
        for old, new in pairs:
            self.value.update(zip(old.outputs, new.outputs, strict=True))
        for mine, theirs in zip(model.graphs(), self.model.graphs(), strict=True):
            self.value.update(zip(mine.inputs, theirs.inputs, strict=True))
        self.weight = dict(zip(weights(model), weights(self.model), strict=True))
        for before, after in self.weight.items():
            self.value[before.value] = after.value


def sliced(weight: Weight, masks: Masks) -> ir.TensorProtocol:
    """The weight without the indices masked out, read when it is needed."""
    where = tuple((k, np.flatnonzero(mask)) for k, mask in enumerate(masks) if not mask.all())

    def take() -> ir.Tensor:
        array = weight.array()
        for k, kept in where:
            array = np.take(array, kept, axis=k)
        return ir.Tensor(np.ascontiguousarray(array).reshape(shape), dtype=weight.dtype, name=weight.name)

    shape = tuple(int(mask.sum()) for mask in masks)
    if weight.nbytes <= EAGER_BYTES:
        return take()
    return ir.LazyTensor(take, dtype=weight.dtype, shape=ir.Shape(shape), name=weight.name)


def _masks(axes: Iterable[Axis], keep: Keep) -> Masks:
    return tuple(keep_mask(axis, keep) for axis in axes)


def _key(masks: Masks) -> bytes:
    return b"".join(mask.tobytes() for mask in masks)


class _Editor:
    """The cutting of one copy."""

    def __init__(self, tracing: Tracing, keep: Keep, twins: Twins) -> None:
        self.tracing, self.keep, self.twins = tracing, keep, twins
        self.orphans: dict[ir.Value, None] = {}
        self.cut: set[ir.Value] = set()
        self.graphs = dict(zip(tracing.model.graphs(), twins.model.graphs(), strict=True))
        self.taken = {value.name for value in twins.value.values()}

    # Weights.

    def cut_weight(self, weight: Weight, uses: Sequence[Use]) -> None:
        """Slices a weight; where its uses disagree, all but one group of them get a copy."""
        groups: dict[bytes, list[Use]] = {}
        for use in uses:
            groups.setdefault(_key(_masks(use.axes, self.keep)), []).append(use)
        # A group that reads it by name, or leaves it whole, keeps the original value; else a single group does.
        for group in groups.values():
            masks = _masks(group[0].axes, self.keep)
            whole = all(mask.all() for mask in masks)
            if not whole:
                self.cut.add(weight.value)
            if not whole and (len(groups) == 1 or any(use.node is None for use in group)):
                replace(self.twins.weight[weight], sliced(weight, masks))
            elif not whole:
                self._copy(weight, group, masks, f"{weight.name}/{len(self.cut)}")
                self.orphans[self.twins.value[weight.value]] = None

    def _copy(self, weight: Weight, group: Sequence[Use], masks: Masks, name: str) -> None:
        tensor = sliced(weight, masks)
        tensor.name = name
        new = self._register(weight.graph, name, tensor)
        for use in group:
            assert use.node is not None
            self.twins.node[use.node].replace_input_with(use.index, new)

    def _register(self, graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new constant in the copy of a graph: an initializer; before IR version 4, where those are inputs, a node."""
        home = self.graphs[graph]
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        tensor.name = name
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy()))
        if self.twins.model.ir_version < 4:
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value])
            home.insert_before(home[0], node)
        else:
            value.const_value = tensor
            home.register_initializer(value)
        return value

    # Integers that follow.

    def follow(self, carrier: Carrier) -> None:
        """Rewrites an integer where its axis shrinks."""
        match carrier:
            case InputSizes(node, index, axes) if self._changes(axes):
                self._new_input(node, index, axes, self._sizes(node, index, axes))
            case InputIndices(node, index, axes, edge) if self._changes(axes):
                self._new_indices(node, index, axes, edge)
            case AttributeSizes(node, name, axes, edge) if self._changes(axes):
                rule = new_edge if edge else new_size
                self._new_attribute(node, name, axes, lambda axis, old: rule(axis, old, self.keep))
            case AttributeValue(node, name, value, axis) if size_changes(axis, self.keep):
                self.twins.node[node].attributes[name] = ir.AttrFloat32(name, value)
            case PinnedShape(node, axes) if self._changes(axes) or (not axes and node.inputs[0] in self.cut):
                self._pin(node)

    def _changes(self, axes: Iterable[Axis | None]) -> bool:
        return any(size_changes(axis, self.keep) for axis in axes)

    def _sizes(self, node: ir.Node, index: int, axes: Sequence[Axis | None]) -> np.ndarray:
        """What the input was: its elements, or where it is missing the sizes of the axes."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return np.array([0 if axis is None else len(keep_mask(axis, {})) for axis in axes])
        return self.tracing.measured.values.get(value, np.zeros(0, np.int64)).reshape(-1)

    def _new_input(self, node: ir.Node, index: int, axes: Sequence[Axis | None], old: np.ndarray) -> None:
        """New sizes: a constant where none of them ever varies, else put together when the model runs."""
        twin, source = self.twins.node[node], node.inputs[index] if index < len(node.inputs) else None
        if len(old) != len(axes):
            raise ValueError(f"{node.op_type} {node.name!r}: its sizes were not seen when it ran")
        new = np.array([new_size(axis, int(n), self.keep) for axis, n in zip(axes, old, strict=True)])
        if source is None:
            twin.attributes.pop("num_outputs", None)
            twin.resize_inputs(index + 1)
            self._set_constant(node, index, new)
            return
        fixed = self.tracing.measured.fixed[source].reshape(-1)
        if node.op_type == "Reshape" and (~fixed).sum() == 1 and (new[fixed] > 0).all():
            new, fixed = np.where(fixed, new, -1), np.ones_like(fixed)
        if fixed.all():
            self._set_constant(node, index, new)
        else:
            self._replace_input(twin, index, self._assemble(node, twin.inputs[index], old, new, fixed))

    def _new_indices(self, node: ir.Node, index: int, axes: Sequence[Axis | None], edge: bool) -> None:
        source = node.inputs[index]
        assert source is not None
        old = self.tracing.measured.constant(source)
        if old is None:
            raise ValueError(f"{node.op_type} {node.name!r} reads a cut axis by indices that vary")
        if edge:
            new = np.array([new_edge(axis, int(n), self.keep) for axis, n in zip(axes, old, strict=True)])
        else:
            assert axes[0] is not None
            mask = keep_mask(axes[0], self.keep)
            old = np.where(old < 0, old + len(mask), old)
            new = (np.cumsum(mask) - 1)[old[mask[old]]]
        self._set_constant(node, index, new)

    def _new_attribute(
        self, node: ir.Node, name: str, axes: Sequence[Axis | None], rule: Callable[[Axis | None, int], int]
    ) -> None:
        attributes = self.twins.node[node].attributes
        attribute = attributes.get(name)
        if attribute is not None and attribute.type == ir.AttributeType.INT:
            attributes[name] = ir.AttrInt64(name, rule(axes[0], attribute.as_int()))
            return
        old = self._sizes(node, len(node.inputs), axes) if attribute is None else attribute.as_ints()
        attributes[name] = ir.AttrInt64s(name, [rule(a, int(n)) for a, n in zip(axes, old, strict=True)])

    def _pin(self, node: ir.Node) -> None:
        output = node.outputs[0]
        old, fixed = self.tracing.measured.values[output], self.tracing.measured.fixed[output]
        twin = self.twins.node[node]
        users = list(twin.outputs[0].uses())
        if fixed.all():
            home = self._graph_of(node)
            pinned = self._register(home, f"{output.name}/pinned", ir.tensor(old.astype(np.int64)))
        else:
            pinned = self._assemble(node, twin.outputs[0], old, old, fixed, after=True)
        for user, i in users:
            user.replace_input_with(i, pinned)
        self.orphans[twin.outputs[0]] = None

    def _assemble(
        self,
        node: ir.Node,
        source: ir.Value | None,
        old: np.ndarray,
        new: np.ndarray,
        fixed: np.ndarray,
        after: bool = False,
    ) -> ir.Value:
        """An integer vector whose fixed elements are constants and whose others are taken from `source` at run time."""
        twin, home = self.twins.node[node], self._graph_of(node)
        label = f"{node.name or node.outputs[0].name}/sizes"
        pieces: list[ir.Value] = []
        made: list[ir.Node] = []

        def emit(op: str, inputs: Sequence[ir.Value | None], **attributes: int) -> ir.Value:
            made.append(ir.node(op, list(inputs), attributes))
            made[-1].outputs[0].name = f"{label}/{op.lower()}{len(made)}"
            return made[-1].outputs[0]

        def number(n: int, what: str) -> ir.Value:
            return self._register(home, f"{label}/{what}", ir.tensor(np.array([n], np.int64)))

        for k, (before, now, known) in enumerate(zip(old, new, fixed, strict=True)):
            if known:
                pieces.append(number(int(now), f"size{k}"))
                continue
            piece = emit("Gather", [source, number(k, f"index{k}")], axis=0)
            if now != before:
                common = int(np.gcd(int(before), int(now)))
                piece = emit("Div", [piece, number(int(before) // common, f"from{k}")])
                piece = emit("Mul", [piece, number(int(now) // common, f"to{k}")])
            pieces.append(piece)
        joined = emit("Concat", pieces, axis=0)
        graph = twin.graph
        assert graph is not None
        if after:
            graph.insert_after(twin, made)
        else:
            graph.insert_before(twin, made)
        return joined

    def _graph_of(self, node: ir.Node) -> ir.Graph:
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        return graph

    def _set_constant(self, node: ir.Node, index: int, new: np.ndarray) -> None:
        source = node.inputs[index] if index < len(node.inputs) else None
        kind = np.int64 if source is None or source.dtype != ir.DataType.INT32 else np.int32
        known = self.tracing.constants.get(source) if source is not None else None
        if known is not None:
            kind = known.dtype.numpy().type
            if known.kind != "constant_of_shape" and len(self.twins.value[known.value].uses()) == 1:
                replace(self.twins.weight[known], new.astype(kind).reshape((-1,) * bool(known.shape)))
                return
        label = f"{node.name or node.outputs[0].name}/{node.op_type.lower()}{index}"
        value = self._register(self._graph_of(node), label, ir.tensor(new.astype(kind)))
        self._replace_input(self.twins.node[node], index, value)

    def _replace_input(self, twin: ir.Node, index: int, value: ir.Value) -> None:
        before = twin.inputs[index]
        twin.replace_input_with(index, value)
        if before is not None:
            self.orphans[before] = None

    # What is left to tidy.

    def update_shapes(self) -> None:
        """Annotated shapes say the new sizes."""
        for value, axes in self.tracing.axes.items():
            twin = self.twins.value.get(value)
            if twin is None or twin.shape is None or len(twin.shape) != len(axes) or twin.const_value is not None:
                continue
            if self._changes(axes):
                twin.shape = ir.Shape(
                    [
                        new_size(axis, old, self.keep) if isinstance(old, int) else old
                        for axis, old in zip(axes, twin.shape.dims, strict=True)
                    ]
                )
        for value in self.twins.model.graph.outputs:
            # Some exporters write -1 for an open axis; with constant sizes before it, that is a contradiction.
            if value.shape is not None and any(isinstance(n, int) and n < 0 for n in value.shape.dims):
                value.shape = ir.Shape(
                    [None if isinstance(n, int) and n < 0 else n for n in value.shape.dims]
                )

    def remove_unused(self) -> None:
        """Drops what made integers that nobody reads any more."""
        queue = list(self.orphans)
        while queue:
            value = queue.pop()
            if value.uses() or value.is_graph_output():
                continue
            node = value.producer()
            if node is not None and node.graph is not None:
                if any(output.uses() or output.is_graph_output() for output in node.outputs):
                    continue
                queue += [each for each in node.inputs if each is not None]
                node.graph.remove(node, safe=True)
            elif value.is_initializer() and isinstance(home := value.graph, ir.Graph):
                home.initializers.pop(value.name)
                if value.is_graph_input():
                    home.inputs.remove(value)
