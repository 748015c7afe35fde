"""What a rule sees of one node, and what it may say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from onnxprune.dims import solver
from onnxprune.dims.axis import Axis, Dim, size
from onnxprune.dims.carriers import Default, Kind, Numbers, PinnedShape
from onnxprune.dims.spec import POSITIONS
from onnxprune.graph.flow import subgraphs

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

    def elements(self, name: str, i: int, default: Iterable[int] = ()) -> list[int | None] | None:
        """Integers that are an attribute in early opsets and input i in later ones (see `Measured.elements`)."""
        if self.has(i):
            return self.tracer.measured.elements(self.node.inputs[i])
        return list(self.attr(name, default))

    def numbers(self, name: str, i: int, default: Iterable[int] = ()) -> list[int] | None:
        """The same where all are known, None where one is not."""
        found = self.elements(name, i, default)
        known = [n for n in found or () if n is not None]
        return None if found is None or len(known) < len(found) else known

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
        for body in subgraphs(self.node):
            for inner in body:
                Context(inner, self.tracer).freeze_all(reason)
            for value in body.outputs:
                self.tracer.freeze_value(value, reason)

    def inexact(self, axis: Axis, reason: str | None = None) -> None:
        """Cutting the axis is not the same as zeroing it."""
        solver.mark_inexact(axis, reason or f"{self.op} runs over it")

    def frozen_axis(self, n: int, reason: str | None = None) -> Dim:
        """A fresh axis of n indices that all stay."""
        return Dim(n, reason or f"{self.op} makes it")

    def meet(self, a: Sequence[Axis], b: Sequence[Axis]) -> None:
        """Axes are one, counted from the right, wherever their sizes agree."""
        for axis, other in zip(reversed(a), reversed(b), strict=False):
            if size(axis) == size(other):
                solver.unify(axis, other)

    def broadcast(self, inputs: Iterable[int], output: int = 0) -> None:
        """Inputs broadcast into an output as numpy does; axes of size 1 say nothing."""
        for i in inputs:
            self.meet(self.axes(i) or (), self.out(output))

    # Which integers follow.

    def follows(
        self,
        place: int | str,
        axes: Sequence[Axis | None],
        kind: Kind = "size",
        missing: bool = False,
    ) -> None:
        """The integers of an input or attribute, where it is there, go with axes (see `carriers.Numbers`).

        They are those of the last axes, where there are fewer elements. Numbers that are computed from data cannot
        follow: then the axes stay. With `missing`, what is not there is made once an axis is cut.
        """
        there = place in self.node.attributes if isinstance(place, str) else self.has(place)
        if isinstance(place, int) and there:
            known = self.tracer.measured.values.get(self.node.inputs[place])  # type: ignore[arg-type]
            if known is None:
                for axis in axes:
                    if axis is not None:
                        self.freeze(axis, f"{self.op} computes its size from data")
                return
            axes = axes[len(axes) - known.size :] if known.size < len(axes) else axes
        if there or missing:
            self.tracer.carriers.append(Numbers(self.node, place, tuple(axes), kind))

    def default_stays(self, name: str, value: float, axis: Axis) -> None:
        """An absent attribute's default depends on the size of an axis: write `value` once that is cut."""
        if name not in self.node.attributes:
            self.tracer.carriers.append(Default(self.node, name, value, axis))

    def pin(self) -> None:
        """The node is a Shape: its answer stays the original one (of a weight: whichever of its uses are cut)."""
        asked = slice(self.attr("start"), self.attr("end"))
        axes = () if self.node.inputs[0] in self.tracer.weights else self.x(0)[asked]
        self.seen.add(0)
        self.tracer.carriers.append(PinnedShape(self.node, axes))
