"""Layout ops between a weight and the op that contracts it, and which axis of the weight is which after them.

Where an op merges or divides axes (Reshape), all are lost; where it selects or joins along one axis (Slice, Split,
Concat: the gates of an LSTM put in ONNX's order), that one is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from onnxprune.graph import constant
from onnxprune.plan.quantized import Quantization

__all__ = ["LAYOUT", "View", "node_input"]


@dataclass(frozen=True)
class View:
    """A weight as it is at some value of the graph.

    Attributes:
        value: Where it is looked at.
        axes: For each axis of `value` the axis of the weight behind it, None where that is lost; None: all are.
        quantization: How its integers are read, once a DequantizeLinear has been passed.
        seen: Values passed on the way, by id.
    """

    value: ir.Value
    axes: tuple[int | None, ...] | None
    quantization: Quantization | None = None
    seen: frozenset[int] = field(default_factory=frozenset)

    def origin(self, axis: int | None) -> int | None:
        """The axis of the weight behind an axis of `value`; None where lost."""
        return None if axis is None or self.axes is None else self.axes[axis]

    def at(self, value: ir.Value | None) -> View:
        """The same view at another value."""
        assert value is not None
        return replace(self, value=value)


def node_input(node: ir.Node, index: int | None) -> ir.Value | None:
    """The input at an index; None where it is left out."""
    return node.inputs[index] if index is not None and index < len(node.inputs) else None


def _same(node: ir.Node, view: View) -> Iterable[View]:
    return [view.at(node.outputs[0])]


def _reshape(node: ir.Node, view: View) -> Iterable[View]:
    return [replace(view.at(node.outputs[0]), axes=None)]


def _transpose(node: ir.Node, view: View) -> Iterable[View]:
    if view.axes is None:
        return _same(node, view)
    order = node.attributes.get_ints("perm") or tuple(reversed(range(len(view.axes))))
    return [replace(view.at(node.outputs[0]), axes=tuple(view.axes[i] for i in order))]


def _unsqueeze(node: ir.Node, view: View) -> Iterable[View]:
    places = _integers(node, "axes", 1)
    if view.axes is None or places is None:
        return _reshape(node, view)
    rank = len(view.axes) + len(places)
    new, old = {place % rank for place in places}, iter(view.axes)
    axes = tuple(None if i in new else next(old) for i in range(rank))
    return [replace(view.at(node.outputs[0]), axes=axes)]


def _squeeze(node: ir.Node, view: View) -> Iterable[View]:
    places = _integers(node, "axes", 1)
    if view.axes is None or places is None:
        return _reshape(node, view)
    gone = {place % len(view.axes) for place in places}
    axes = tuple(axis for i, axis in enumerate(view.axes) if i not in gone)
    return [replace(view.at(node.outputs[0]), axes=axes)]


def _along(view: View, places: Iterable[int] | None) -> View:
    """The view without the axes along which something is selected or joined."""
    if view.axes is None or places is None:
        return replace(view, axes=None)
    gone = {place % len(view.axes) for place in places}
    return replace(view, axes=tuple(None if i in gone else a for i, a in enumerate(view.axes)))


def _slice(node: ir.Node, view: View) -> Iterable[View]:
    places = _integers(node, "axes", 3)
    if places is None and node_input(node, 3) is None:
        starts = _integers(node, "starts", 1)
        places = None if starts is None else tuple(range(len(starts)))
    return [_along(view, places).at(node.outputs[0])]


def _split(node: ir.Node, view: View) -> Iterable[View]:
    part = _along(view, [node.attributes.get_int("axis", 0)])
    return [part.at(output) for output in node.outputs]


def _concat(node: ir.Node, view: View) -> Iterable[View]:
    """Joined with other weights it is a weight; joined with activations (a class token) it is an activation."""
    if not all(_is_weight(value) for value in node.inputs):
        return []
    return [_along(view, [node.attributes.get_int("axis", 0)]).at(node.outputs[0])]


def _is_weight(value: ir.Value | None) -> bool:
    """Whether a value is made of constants by layout ops alone."""
    node = None if value is None else value.producer()
    if value is None or node is None:
        return value is not None and value.is_initializer()
    if (node.domain, node.op_type) in LAYOUT:
        return all(_is_weight(source) for source in node.inputs if source is not None)
    return constant(value) is not None


def _dequantize(node: ir.Node, view: View) -> Iterable[View]:
    """Integers become reals; floats that QuantizeLinear made integers are floats again."""
    dtype = view.value.dtype
    if dtype is not None and not dtype.is_integer():
        return _same(node, view)
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    origin = view.origin(axis) if view.axes is not None and axis < len(view.axes) else None
    scale, zero_point = node_input(node, 1), node_input(node, 2)
    quantization = Quantization(scale, zero_point, axis if origin is None else origin, block)
    return [replace(view.at(node.outputs[0]), quantization=quantization)]


def _quantize(node: ir.Node, view: View) -> Iterable[View]:
    """Float weights quantised inside the graph: zero becomes the zero point, so they stay float weights."""
    users = node.outputs[0].uses()
    return [
        view.at(user.outputs[0])
        for user, index in users
        if user.op_type == "DequantizeLinear" and index == 0
    ]


def _integers(node: ir.Node, name: str, index: int) -> tuple[int, ...] | None:
    """Integers given as an attribute (early opsets) or a constant input; None where neither is."""
    if name in node.attributes:
        return tuple(node.attributes.get_ints(name) or ())
    value = node_input(node, index)
    tensor = constant(value) if value is not None else None
    return None if tensor is None else tuple(int(i) for i in tensor.numpy().reshape(-1))


LAYOUT: dict[tuple[str, str], Callable[[ir.Node, View], Iterable[View]]] = {
    ("", "Identity"): _same,
    ("", "Cast"): _same,
    ("", "CastLike"): _same,
    ("", "Transpose"): _transpose,
    ("", "Reshape"): _reshape,
    ("", "Flatten"): _reshape,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Squeeze"): _squeeze,
    ("", "Slice"): _slice,
    ("", "Split"): _split,
    ("", "Concat"): _concat,
    ("", "DequantizeLinear"): _dequantize,
    ("com.microsoft", "DequantizeLinear"): _dequantize,
    ("", "QuantizeLinear"): _quantize,
    ("com.microsoft", "QuantizeLinear"): _quantize,
}
"""What each op makes of a view, by (domain, op type); `node` reads the view as its data input."""
