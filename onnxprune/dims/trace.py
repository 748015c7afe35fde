"""Tracing: walks a model once, asks every node's rule what it says, and gathers what follows.

The driver knows no op. A node without a rule, or one whose values were never measured, freezes what it touches.
Weights get axes of their own at every use, so that an initializer shared by two nodes may be cut differently for each
(copy on write); every other value has one set of axes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import onnx_ir as ir

import onnxprune.dims.rules  # noqa: F401  (fills the registry)
from onnxprune.dims.axis import Axis, Dim, leaves, resolve, size
from onnxprune.dims.carriers import Carrier
from onnxprune.dims.context import Context
from onnxprune.dims.registry import rule_for
from onnxprune.dims.solver import freeze, unify
from onnxprune.graph import NAMES, Weight, weights
from onnxprune.runtime.measure import Measured

__all__ = ["DimInfo", "Tracing", "Use", "by_weight", "trace"]

Axes = tuple[Axis, ...]
NOT_NUMBERS = (ir.DataType.INT64, ir.DataType.BOOL, ir.DataType.STRING)


@dataclass(frozen=True, eq=False)
class Use:
    """A weight as one node reads it (node None: it is a graph output, or made by a ConstantOfShape)."""

    weight: Weight
    node: ir.Node | None
    index: int
    axes: Axes


def by_weight(uses: Iterable[Use]) -> dict[Weight, list[Use]]:
    """The uses of every weight that is used."""
    found: dict[Weight, list[Use]] = {}
    for use in uses:
        found.setdefault(use.weight, []).append(use)
    return found


@dataclass(frozen=True, eq=False)
class DimInfo:
    """A Dim as a user sees it.

    Attributes:
        dim: The Dim itself.
        name: The first weight axis that it is part of, as `tensor:axis` (with `[offset]` where it is a part of one).
        slices: Every weight use and axis that it is part of.
    """

    dim: Dim
    name: str
    slices: tuple[tuple[Use, int], ...]

    @property
    def size(self) -> int:
        """How many indices it has."""
        return self.dim.size


@dataclass(frozen=True, eq=False)
class Tracing:
    """What tracing found. Dims are final: nothing is bound any more after this is made.

    Attributes:
        model: The model traced.
        measured: Shapes and fixed integers of its values.
        axes: The axes of every tensor but the weights.
        uses: The weights, use by use.
        carriers: Integers that follow when axes shrink.
    """

    model: ir.Model
    measured: Measured
    axes: Mapping[ir.Value, Axes]
    uses: tuple[Use, ...]
    carriers: tuple[Carrier, ...]

    @cached_property
    def constants(self) -> Mapping[ir.Value, Weight]:
        """The weights by value, read by a node or not."""
        return {weight.value: weight for weight in weights(self.model)}

    @cached_property
    def by_input(self) -> Mapping[tuple[ir.Node, int], Use]:
        """The weight uses by node and input index."""
        return {(use.node, use.index): use for use in self.uses if use.node is not None}

    def input_axes(self, node: ir.Node, index: int) -> Axes | None:
        """The axes of an input of a node, weight or not; None where there is no tensor."""
        value = node.inputs[index] if index < len(node.inputs) else None
        if value is None:
            return None
        use = self.by_input.get((node, index))
        return use.axes if use is not None else self.axes.get(value)

    @cached_property
    def dims(self) -> tuple[DimInfo, ...]:
        """Every Dim that is part of a tensor of numbers (not of sizes or indices), frozen or not, in graph order."""
        found: dict[Dim, list[tuple[Use, int]]] = {}
        for use in self.uses:
            for k, axis in enumerate(use.axes):
                for dim in dict.fromkeys(leaves(axis)):
                    found.setdefault(dim, []).append((use, k))
        return tuple(
            DimInfo(dim, _name(dim, slices), tuple(slices))
            for dim, slices in found.items()
            if dim.size > 1 and any(use.weight.dtype not in NOT_NUMBERS for use, _ in slices)
        )

    def free(self, allow_inexact: bool = False) -> tuple[DimInfo, ...]:
        """The Dims that may be cut."""
        return tuple(
            info
            for info in self.dims
            if info.dim.frozen is None and (allow_inexact or info.dim.inexact is None)
        )


def _name(dim: Dim, slices: Sequence[tuple[Use, int]]) -> str:
    """The first matrix that has the Dim, or else vector, with the axis."""
    use, k = next((each for each in slices if len(each[0].axes) > 1), slices[0])
    parts = list(dict.fromkeys(leaves(use.axes[k])))
    which = f"[{parts.index(dim)}]" if len(parts) > 1 else ""
    return f"{use.weight.name}:{k}{which}"


def trace(model: ir.Model, measured: Measured) -> Tracing:
    """Finds which indices of which tensors live and die together.

    Args:
        model: A model without local functions (see `onnxprune.graph.inline`). It is not changed.
        measured: Shapes of its values, from `onnxprune.runtime.measure`.
    """
    tracer = Tracer(model, measured)
    tracer.walk(model.graph)
    tracer.freeze_interface(model.graph)
    tracer.join_shared()
    tracer.freeze_ambiguous()
    return tracer.finish()


@dataclass
class Tracer:
    """The state of one tracing."""

    model: ir.Model
    measured: Measured
    carriers: list[Carrier] = field(default_factory=list)
    _axes: dict[ir.Value, Axes] = field(default_factory=dict)
    _uses: dict[tuple[ir.Node, int], Axes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.weights = {weight.value: weight for weight in weights(self.model)}
        self.shapes = self.measured.shapes

    def walk(self, graph: ir.Graph) -> None:
        """Applies the rule of every node, in order."""
        for node in graph:
            if node.op_type == "Constant":
                continue
            context = Context(node, self)
            named = (v for v in (*node.inputs, *node.outputs) if v is not None and v.name)
            missing = next((value.name for value in named if value not in self.shapes), None)
            rule = rule_for(node.domain, node.op_type)
            if missing is not None:
                context.freeze_all(f"{node.op_type} has no measured shape at {missing!r}")
            elif rule is None:
                domain = f"{node.domain}::" if node.domain else ""
                context.freeze_all(f"no rule for {domain}{node.op_type}")
            else:
                rule(context)
                self._freeze_parameters(node, context)

    def _freeze_parameters(self, node: ir.Node, context: Context) -> None:
        """What a rule did not look at is read as numbers (sizes, bounds, scales): its axes stay, at this use."""
        for i, value in enumerate(node.inputs):
            if value is None or i in context.seen:
                continue
            if value not in self.weights or len(value.uses()) > 1:
                for axis in self.input_axes(node, i) or ():
                    freeze(axis, f"{node.op_type} reads it as a parameter")
        for value in node.outputs:
            if value.name and value not in self._axes:
                self.freeze_value(value, f"{node.op_type} makes it, and its rule does not say how")

    def freeze_interface(self, graph: ir.Graph) -> None:
        """Inputs and outputs of the model are its interface: their axes stay."""
        for value in graph.inputs:
            if value not in self.weights:
                self.freeze_value(value, f"it is part of graph input {value.name}")
        for value in graph.outputs:
            self.freeze_value(value, f"it feeds graph output {value.name}")

    def join_shared(self) -> None:
        """A matrix that several nodes read is cut the same way for all of them; only vectors are worth copies."""
        for first, *others in by_weight(self.uses()).values():
            for other in others if len(first.axes) > 1 else ():
                for axis, same in zip(first.axes, other.axes, strict=True):
                    unify(axis, same)

    def freeze_ambiguous(self) -> None:
        """A plan names tensors: of several that share a name only the last can be cut."""
        last = {weight.name: weight for weight in self.weights.values()}
        named = self.model.meta.get(NAMES)
        for use in self.uses():
            name = use.weight.name
            if last[name] is not use.weight or (named is not None and name not in named):
                for axis in use.axes:
                    freeze(axis, "its tensor's name stands for several tensors of the file")

    def freeze_value(self, value: ir.Value, reason: str) -> None:
        """All axes of a value stay."""
        for axis in self.axes_of(value):
            freeze(axis, reason)

    def axes_of(self, value: ir.Value) -> Axes:
        """The axes of a value, made fresh from its measured shape where nothing was said yet."""
        if value not in self._axes:
            self._axes[value] = self._fresh(value)
        return self._axes[value]

    def input_axes(self, node: ir.Node, index: int) -> Axes | None:
        """The axes of an input of a node: of this use where it is a weight."""
        value = node.inputs[index]
        if value is None or value not in self.shapes:
            return None
        if value not in self.weights or self.weights[value].kind == "constant_of_shape":
            return self.axes_of(value)
        if (node, index) not in self._uses:
            self._uses[node, index] = self._fresh(value)
        return self._uses[node, index]

    def assign(self, value: ir.Value, axes: Axes) -> None:
        """Says what the axes of a value are."""
        measured = self.shapes.get(value)
        if measured is None or not value.name:
            return
        if tuple(size(axis) for axis in axes) != measured:
            for axis in (*axes, *self.axes_of(value)):
                freeze(
                    axis,
                    f"what is known of {value.name} does not fit its measured shape {list(measured)}",
                )
        elif value in self._axes:
            for axis, known in zip(axes, self._axes[value], strict=True):
                unify(axis, known)
        else:
            self._axes[value] = axes

    def uses(self) -> Iterator[Use]:
        """The weights, use by use, as far as they are known."""
        for (node, index), axes in self._uses.items():
            value = node.inputs[index]
            assert value is not None
            yield Use(self.weights[value], node, index, axes)
        for value, axes in self._axes.items():
            weight = self.weights.get(value)
            if weight and (weight.kind == "constant_of_shape" or value.is_graph_output()):
                yield Use(weight, None, -1, axes)

    def finish(self) -> Tracing:
        """The result, with every binding followed."""
        axes = {
            value: tuple(map(resolve, each))
            for value, each in self._axes.items()
            if value in self.shapes
        }
        uses = [replace(use, axes=tuple(map(resolve, use.axes))) for use in self.uses()]
        return Tracing(self.model, self.measured, axes, tuple(uses), tuple(self.carriers))

    def _fresh(self, value: ir.Value) -> Axes:
        return tuple(Dim(n) for n in self.shapes.get(value, ()))
