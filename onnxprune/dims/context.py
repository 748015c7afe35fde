"""What a rule sees of one node, and what it may say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from onnxprune.dims import solver
from onnxprune.dims.axis import Axis, Dim, size
from onnxprune.dims.carriers import (
    AttributeSizes,
    AttributeValue,
    Carrier,
    InputIndices,
    InputSizes,
    PinnedShape,
)
from onnxprune.dims.spec import POSITIONS

if TYPE_CHECKING:
    from onnxprune.dims.trace import Tracer

__all__ = ["Context"]


class Context:
    """One node under tracing.

    Inputs and outputs are counted from 0. Optional ones that are absent, and values that hold no tensor, have no axes.
    """

    def __init__(self, node: ir.Node, tracer: Tracer) -> None:
        self.node = node
        self.tracer = tracer
        self.op = node.op_type
        self.input_count = len(node.inputs)
        self.output_count = len(node.outputs)
        self.seen: set[int] = set()

    # What the node is.

    @property
    def opset(self) -> int:
        """The version of the default domain."""
        return self.tracer.model.opset_imports.get("", 1)

    def has(self, i: int) -> bool:
        """Whether input i is there."""
        return i < self.input_count and self.node.inputs[i] is not None

    def shape(self, i: int) -> tuple[int, ...]:
        """The measured shape of input i."""
        value = self.node.inputs[i]
        assert value is not None
        return self.tracer.shapes[value]

    def out_shape(self, i: int = 0) -> tuple[int, ...]:
        """The measured shape of output i."""
        return self.tracer.shapes[self.node.outputs[i]]

    def rank(self, i: int = 0) -> int:
        """The number of axes of input i."""
        return len(self.shape(i))

    def attr(self, name: str, default: Any = None) -> Any:
        """The value of an attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.value

    def const(self, i: int) -> np.ndarray | None:
        """The elements of integer input i where they are the same whatever the model is fed, flat; None otherwise."""
        value = self.node.inputs[i] if self.has(i) else None
        if value is None:
            return None
        return self.tracer.constant(value)

    # Its axes.

    def axes(self, i: int) -> tuple[Axis, ...] | None:
        """The axes of input i, None where there is no such tensor."""
        self.seen.add(i)
        return self.tracer.input_axes(self.node, i) if self.has(i) else None

    def x(self, i: int = 0) -> tuple[Axis, ...]:
        """The axes of input i, which must be there."""
        axes = self.axes(i)
        assert axes is not None, f"{self.op} without input {i}"
        return axes

    def out(self, i: int = 0) -> tuple[Axis, ...]:
        """The axes of output i; fresh Dims unless said otherwise."""
        if i >= self.output_count or not self.node.outputs[i].name:
            return ()
        return self.tracer.axes_of(self.node.outputs[i])

    def set_out(self, axes: Iterable[Axis], i: int = 0) -> None:
        """Says what the axes of output i are; sizes that differ from the measured ones freeze both."""
        if i < self.output_count:
            self.tracer.assign(self.node.outputs[i], tuple(axes))

    # What it says about them.

    def unify(self, a: Axis, b: Axis) -> None:
        """The two axes are one."""
        solver.unify(a, b)

    def freeze(self, axis: Axis, reason: str | None = None) -> None:
        """No index of the axis may go."""
        solver.freeze(axis, reason or f"{self.op} {POSITIONS}")

    def freeze_all(self, reason: str) -> None:
        """Nothing that the node touches may be cut, nor what its bodies read."""
        for i in range(self.input_count):
            for axis in self.axes(i) or ():
                solver.freeze(axis, reason)
        for i in range(self.output_count):
            for axis in self.out(i):
                solver.freeze(axis, reason)
        for attribute in self.node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for inner in attribute.as_graph():
                    Context(inner, self.tracer).freeze_all(reason)
                for value in attribute.as_graph().outputs:
                    self.tracer.freeze_value(value, reason)

    def inexact(self, axis: Axis, reason: str | None = None) -> None:
        """Cutting the axis is not the same as zeroing it."""
        solver.mark_inexact(axis, reason or f"{self.op} runs over it")

    def frozen_axis(self, n: int, reason: str | None = None) -> Dim:
        """A fresh axis of n indices that all stay."""
        return Dim(n, reason or f"{self.op} makes it")

    def broadcast(self, inputs: Iterable[int], output: int = 0) -> None:
        """Inputs broadcast into an output as numpy does; axes of size 1 say nothing."""
        out = self.out(output)
        for i in inputs:
            for k, axis in enumerate(reversed(self.axes(i) or ()), start=1):
                if size(axis) == size(out[-k]):
                    solver.unify(axis, out[-k])

    # Which integers follow.

    def sizes(self, i: int, axes: Sequence[Axis | None]) -> None:
        """Element k of integer input i is the size of axes[k]; of the last axes, where there are fewer elements.

        Sizes that are computed from data cannot follow: then the axes stay.
        """
        value = self.node.inputs[i] if self.has(i) else None
        if value is None:
            return
        known = self.tracer.measured.values.get(value)
        if known is None:
            for axis in axes:
                if axis is not None:
                    self.freeze(axis, f"{self.op} computes its size from data")
        else:
            self.carry(InputSizes(self.node, i, tuple(axes)[len(axes) - known.size :]))

    def indices(self, i: int, axes: Sequence[Axis | None], edge: bool = False) -> None:
        """The elements of integer input i are positions on axes[k] (bounds, with `edge`)."""
        self._carry(i, InputIndices(self.node, i, tuple(axes), edge))

    def attr_follows(
        self, name: str, axes: Axis | Sequence[Axis | None], edge: bool = False
    ) -> None:
        """An attribute, where present, is the size of an axis or a list of sizes (or of bounds)."""
        if name in self.node.attributes:
            each = tuple(axes) if isinstance(axes, Sequence) else (axes,)
            self.carry(AttributeSizes(self.node, name, each, edge))

    def split_follows(self, parts: Sequence[Axis]) -> None:
        """The node is a Split: its sizes, wherever this opset keeps them, are those of the parts."""
        if self.opset < 13 or "split" in self.node.attributes:
            self.carry(AttributeSizes(self.node, "split", tuple(parts)))
        elif self.has(1):
            self.sizes(1, parts)
        else:
            self.carry(InputSizes(self.node, 1, tuple(parts)))

    def attr_stays(self, name: str, value: float, axis: Axis) -> None:
        """An absent attribute's default depends on the size of an axis: write `value` once that is cut."""
        if name not in self.node.attributes:
            self.carry(AttributeValue(self.node, name, value, axis))

    def pin(self) -> None:
        """The node is a Shape: its answer stays the original one (of a weight: whichever of its uses are cut)."""
        value = self.node.inputs[0]
        self.seen.add(0)
        self.carry(PinnedShape(self.node, () if value in self.tracer.weights else self.x(0)))

    def carry(self, carrier: Carrier) -> None:
        """Notes an integer that follows."""
        self.tracer.carriers.append(carrier)

    def _carry(self, i: int, carrier: Carrier) -> None:
        if self.has(i):
            self.carry(carrier)
