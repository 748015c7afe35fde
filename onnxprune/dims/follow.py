"""Integers that follow when axes shrink: what `carriers.py` states, carried out on a copy of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Keep, keep_mask
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
from onnxprune.dims.edit import Edit
from onnxprune.dims.trace import Tracing
from onnxprune.graph import replace

__all__ = ["follow"]

Axes = Sequence[Axis | None]


def follow(carrier: Carrier, tracing: Tracing, keep: Keep, edit: Edit) -> None:
    """Rewrites an integer where its axis shrinks."""
    job = _Follower(tracing, keep, edit)
    match carrier:
        case InputSizes(node, index, axes) if changes(axes, keep):
            job.sizes(node, index, axes)
        case InputIndices(node, index, axes, edge) if changes(axes, keep):
            job.indices(node, index, axes, edge)
        case AttributeSizes(node, name, axes, edge) if changes(axes, keep):
            job.attribute(node, name, axes, new_edge if edge else new_size)
        case AttributeValue(node, name, value, axis) if size_changes(axis, keep):
            edit.node[node].attributes[name] = ir.AttrFloat32(name, value)
        case PinnedShape(node, axes) if changes(axes, keep) or not axes:
            job.pin(node)


def changes(axes: Iterable[Axis | None], keep: Keep) -> bool:
    """Whether any of the axes loses an index."""
    return any(size_changes(axis, keep) for axis in axes)


class _Follower:
    def __init__(self, tracing: Tracing, keep: Keep, edit: Edit) -> None:
        self.tracing, self.keep, self.edit = tracing, keep, edit

    def sizes(self, node: ir.Node, index: int, axes: Axes) -> None:
        """A constant where none of the sizes ever varies, else put together when the model runs."""
        source = node.inputs[index] if index < len(node.inputs) else None
        if source is None:
            twin = self.edit.node[node]
            twin.attributes.pop("num_outputs", None)
            twin.resize_inputs(index + 1)
            self._set(node, index, np.array([self._new(axis) for axis in axes]))
            return
        old = self.tracing.measured.values.get(source, np.zeros(0, np.int64)).reshape(-1)
        if len(old) != len(axes):
            raise ValueError(f"{node.op_type} {node.name!r}: its sizes were not seen when it ran")
        pairs = zip(axes, old, strict=True)
        new = np.array([new_size(axis, int(n), self.keep) for axis, n in pairs])
        fixed = self.tracing.measured.fixed[source].reshape(-1)
        if node.op_type == "Reshape" and (~fixed).sum() == 1 and (new[fixed] > 0).all():
            new, fixed = np.where(fixed, new, -1), np.ones_like(fixed)
        if fixed.all():
            self._set(node, index, new)
        else:
            made, value = self._assemble(node, self.edit.value[source], old, new, fixed)
            _graph(self.edit.node[node]).insert_before(self.edit.node[node], made)
            self.edit.replace_input(node, index, value)

    def indices(self, node: ir.Node, index: int, axes: Axes, edge: bool) -> None:
        """Bounds count what remains before them; indices that go are dropped, the others renumbered."""
        source = node.inputs[index]
        old = None if source is None else self.tracing.measured.constant(source)
        if old is None:
            raise ValueError(f"{node.op_type} {node.name!r} reads a cut axis at places that vary")
        if edge:
            pairs = zip(axes, old, strict=True)
            new = np.array([new_edge(axis, int(n), self.keep) for axis, n in pairs])
        else:
            assert axes[0] is not None
            mask = keep_mask(axes[0], self.keep)
            old = np.where(old < 0, old + len(mask), old)
            new = (np.cumsum(mask) - 1)[old[mask[old]]]
        self._set(node, index, new)

    def attribute(self, node: ir.Node, name: str, axes: Axes, rule: Callable[..., int]) -> None:
        """A number or a list; made where it is missing."""
        attributes = self.edit.node[node].attributes
        known = attributes.get(name)
        if known is None:
            attributes[name] = ir.AttrInt64s(name, [self._new(axis) for axis in axes])
        elif known.type == ir.AttributeType.INT:
            attributes[name] = ir.AttrInt64(name, rule(axes[0], known.as_int(), self.keep))
        else:
            pairs = zip(axes, known.as_ints(), strict=True)
            attributes[name] = ir.AttrInt64s(name, [rule(axis, n, self.keep) for axis, n in pairs])

    def pin(self, node: ir.Node) -> None:
        """The users of a Shape go on reading the original sizes."""
        output = node.outputs[0]
        old, fixed = self.tracing.measured.values[output], self.tracing.measured.fixed[output]
        twin = self.edit.node[node]
        users = list(twin.outputs[0].uses())
        if fixed.all():
            sizes = ir.tensor(old.astype(np.int64))
            pinned = self.edit.constant(_graph(node), f"{output.name}/pinned", sizes)
        else:
            made, pinned = self._assemble(node, twin.outputs[0], old, old, fixed)
            _graph(twin).insert_after(twin, made)
        self.edit.replace_users(output, pinned, users)

    def _new(self, axis: Axis | None) -> int:
        return 0 if axis is None else int(keep_mask(axis, self.keep).sum())

    def _set(self, node: ir.Node, index: int, new: np.ndarray) -> None:
        """Gives an integer input new contents: in place where the constant is this node's own."""
        source = node.inputs[index] if index < len(node.inputs) else None
        known = None if source is None else self.tracing.constants.get(source)
        wide = source is None or source.dtype != ir.DataType.INT32
        kind = np.dtype(np.int64 if wide else np.int32) if known is None else known.dtype.numpy()
        new = new.astype(kind)
        if known is not None and known.kind != "constant_of_shape":
            twin = self.edit.weight[known]
            if len(twin.value.uses()) == 1 and not twin.value.is_graph_output():
                replace(twin, new.reshape((-1,) * bool(known.shape)))
                return
        label = f"{node.name or node.outputs[0].name}/{node.op_type.lower()}{index}"
        self.edit.replace_input(
            node, index, self.edit.constant(_graph(node), label, ir.tensor(new))
        )

    def _assemble(
        self, node: ir.Node, source: ir.Value, old: np.ndarray, new: np.ndarray, fixed: np.ndarray
    ) -> tuple[list[ir.Node], ir.Value]:
        """Nodes for an integer vector whose fixed elements are constants, the others taken from `source`."""
        label = f"{node.name or node.outputs[0].name}/sizes"
        made: list[ir.Node] = []

        def emit(op: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
            made.append(ir.node(op, list(inputs), attributes))
            made[-1].outputs[0].name = self.edit.unused(f"{label}/{op.lower()}{len(made)}")
            return made[-1].outputs[0]

        def number(n: int, what: str) -> ir.Value:
            tensor = ir.tensor(np.array([n], np.int64))
            return self.edit.constant(_graph(node), f"{label}/{what}", tensor)

        pieces: list[ir.Value] = []
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
        return made, joined


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
