"""Integers that follow when axes shrink: what `carriers.py` states, carried out on a copy of the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Keep, size
from onnxprune.dims.carriers import (
    Carrier,
    Default,
    Kind,
    Numbers,
    PinnedShape,
    changes,
    renumbered,
)
from onnxprune.dims.trace import Tracing
from onnxprune.graph import replace
from onnxprune.graph.edit import Edit

__all__ = ["follow"]

Axes = Sequence[Axis | None]


def follow(carrier: Carrier, tracing: Tracing, keep: Keep, edit: Edit) -> None:
    """Rewrites an integer where its axis shrinks."""
    job = _Follower(tracing, keep, edit)
    match carrier:
        case Numbers(node, str(name), axes) if changes(axes, keep):
            job.attribute(node, name, axes, carrier.kind)
        case Numbers(node, int(index), axes) if changes(axes, keep):
            job.input(node, index, axes, carrier.kind)
        case Default(node, name, value, axis) if changes([axis], keep):
            edit.node[node].attributes[name] = ir.AttrFloat32(name, value)
        case PinnedShape(node, axes) if changes(axes, keep) or not axes:
            job.pin(node, axes)


class _Follower:
    def __init__(self, tracing: Tracing, keep: Keep, edit: Edit) -> None:
        self.tracing, self.keep, self.edit = tracing, keep, edit

    def attribute(self, node: ir.Node, name: str, axes: Axes, kind: Kind) -> None:
        """A number or a list."""
        attributes = self.edit.node[node].attributes
        known = attributes.get(name)
        if known is not None and known.type == ir.AttributeType.INT:
            (new,) = renumbered(kind, axes, [known.as_int()], self.keep)
            attributes[name] = ir.AttrInt64(name, new)
        else:
            old = _sizes(axes) if known is None else known.as_ints()
            attributes[name] = ir.AttrInt64s(name, renumbered(kind, axes, old, self.keep))

    def input(self, node: ir.Node, index: int, axes: Axes, kind: Kind) -> None:
        """A constant where no element ever varies, else put together when the model runs."""
        source = node.inputs[index] if index < len(node.inputs) else None
        if source is None:
            twin = self.edit.node[node]
            twin.attributes.pop("num_outputs", None)
            twin.resize_inputs(index + 1)
            self._set(node, index, renumbered(kind, axes, _sizes(axes), self.keep))
            return
        old = self.tracing.measured.values[source].reshape(-1)
        fixed = self.tracing.measured.fixed[source].reshape(-1)
        new = np.array(renumbered(kind, axes, old.tolist(), self.keep), np.int64)
        if (
            kind == "size"
            and node.op_type == "Reshape"
            and (~fixed).sum() == 1
            and (new[fixed] > 0).all()
        ):
            new, fixed = np.where(fixed, new, -1), np.ones_like(fixed)
        if fixed.all():
            self._set(node, index, new)
        else:
            made, value = self._assemble(node, self.edit.value[source], old, new, fixed)
            _graph(self.edit.node[node]).insert_before(self.edit.node[node], made)
            self.edit.replace_input(node, index, value)

    def pin(self, node: ir.Node, axes: Axes) -> None:
        """The users of a Shape go on reading the original sizes."""
        output = node.outputs[0]
        old, fixed = self.tracing.measured.values[output], self.tracing.measured.fixed[output]
        twin = self.edit.node[node]
        users = list(twin.outputs[0].uses())
        if fixed.all():
            sizes = ir.tensor(old.astype(np.int64))
            pinned = self.edit.constant(_graph(node), f"{output.name}/pinned", sizes)
        else:
            now = np.array(renumbered("size", axes, old.tolist(), self.keep))
            made, pinned = self._assemble(node, twin.outputs[0], now, old, fixed)
            _graph(twin).insert_after(twin, made)
        self.edit.replace_users(output, pinned, users)

    def _set(self, node: ir.Node, index: int, numbers: Sequence[int] | np.ndarray) -> None:
        """Gives an integer input new contents: in place where the constant is this node's own."""
        source = node.inputs[index] if index < len(node.inputs) else None
        known = None if source is None else self.tracing.constants.get(source)
        new = np.array(numbers, np.int64)
        if source is not None:
            new = _like(new, self.tracing.measured.values[source])
        if known is not None and known.kind != "constant_of_shape":
            twin = self.edit.weight[known]
            if len(twin.value.uses()) == 1 and not twin.value.is_graph_output():
                replace(twin, new)
                return
        label = f"{node.name or node.outputs[0].name}/{node.op_type.lower()}{index}"
        self.edit.replace_input(
            node, index, self.edit.constant(_graph(node), label, ir.tensor(new))
        )

    def _assemble(
        self, node: ir.Node, source: ir.Value, old: np.ndarray, new: np.ndarray, fixed: np.ndarray
    ) -> tuple[list[ir.Node], ir.Value]:
        """Nodes for an integer vector whose fixed elements are constants, the others those of `source` to scale."""
        label = f"{node.name or node.outputs[0].name}/sizes"
        made: list[ir.Node] = []

        def emit(op: str, inputs: Sequence[ir.Value], **attributes: int) -> ir.Value:
            made.append(ir.node(op, list(inputs), attributes))
            made[-1].outputs[0].name = self.edit.unused(f"{label}/{op.lower()}{len(made)}")
            return made[-1].outputs[0]

        def number(n: int, what: str) -> ir.Value:
            tensor = ir.tensor(np.array([n], old.dtype))
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


def _like(numbers: np.ndarray, old: np.ndarray) -> np.ndarray:
    """Integers with the type and the rank of others; all axes of those but one are of size 1."""
    return numbers.astype(old.dtype).reshape([1 if n == 1 else -1 for n in old.shape])


def _sizes(axes: Axes) -> list[int]:
    return [0 if axis is None else size(axis) for axis in axes]


def _graph(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
