"""Where the function behind a value is constant: there any value on the same side is as right as any other.

A Relu tells no negative number from another, a Clip none beyond its ends. What is fitted to the value in front of it
need not be right there, it only must not come out on the wrong side. So the target of a fit is moved to the nearest
value that is as right: where the original is on the flat part, that is what the fit gives, as far as it is there too.

    t  ->  min(y, low)    where t <= low
           max(y, high)   where t >= high
           t              elsewhere

Source: Zhang, Zou, He, Sun, "Accelerating very deep convolutional networks for classification and detection", IEEE
TPAMI 38, 2016, section 3.2 (the response behind the ReLU, not before it). What is as right is a convex set here, and
the target the projection on it: no relaxation is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.views import view_of

__all__ = ["Flat", "flat_behind"]

Array = np.ndarray
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Flat:
    """The ends of the part that is not flat, for each channel: float32 (channels,), infinite where there is none."""

    low: Array
    high: Array

    def of(self, channels: Array) -> Flat:
        """That of some channels, a boolean array."""
        return Flat(self.low[channels], self.high[channels])

    def grouped(self, groups: int) -> Flat:
        """For rows (groups, positions, channels of a group)."""
        return Flat(self.low.reshape(groups, 1, -1), self.high.reshape(groups, 1, -1))

    def nearest(self, target: Array, given: Array) -> Array:
        """What is as right as the target and nearest to what is given."""
        moved = np.where(target <= self.low, np.minimum(given, self.low), target)
        return np.where(target >= self.high, np.maximum(given, self.high), moved)


def flat_behind(value: ir.Value, axis: int, rank: int, channels: int) -> Flat | None:
    """What follows a value until a function with flat parts, by channel.

    Args:
        value: The value.
        axis: Its axis of channels, from the end.
        rank: How many axes it has.
        channels: How many channels.

    Returns:
        None where several nodes read it, or what follows has no flat parts.
    """
    scale, shift = np.ones(channels), np.zeros(channels)
    while len(uses := value.uses()) == 1 and not value.is_graph_output():
        ((node, index),) = uses
        if node.domain not in ("", "ai.onnx"):
            return None
        if node.op_type in _ENDS:
            low, high = _ENDS[node.op_type](node)
            return _through(scale, shift, low, high)
        step = _AFFINE.get(node.op_type)
        factors = None if step is None else step(node, index, axis, rank, channels)
        if factors is None:
            return None
        a, b = factors
        scale, shift = scale * a, shift * a + b
        value = node.outputs[0]
    return None


def _through(scale: Array, shift: Array, low: float, high: float) -> Flat | None:
    """The ends before  scale * x + shift."""
    known = not (np.isnan(low) or np.isnan(high))
    if not known or np.isinf([low, high]).all() or (scale == 0).any():
        return None
    ends = [(end - shift) / scale for end in (low, high)]
    return Flat(np.minimum(*ends).astype(np.float32), np.maximum(*ends).astype(np.float32))


def _relu(node: ir.Node) -> Interval:
    return 0.0, np.inf


def _clip(node: ir.Node) -> Interval:
    low, high = (_number(node, k, name) for k, name in ((1, "min"), (2, "max")))
    return -np.inf if low is None else low, np.inf if high is None else high


def _number(node: ir.Node, index: int, name: str) -> float | None:
    """An end of a Clip: an attribute before opset 11, an input since; NaN where it is computed."""
    if name in node.attributes:
        return node.attributes.get_float(name, 0.0)
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return None
    view = view_of(value)
    return float("nan") if view is None else float(view.read().reshape(-1)[0])


def _hard_sigmoid(node: ir.Node) -> Interval:
    alpha, beta = (node.attributes.get_float(n, d) for n, d in (("alpha", 0.2), ("beta", 0.5)))
    return -beta / alpha, (1 - beta) / alpha


def _hard_swish(node: ir.Node) -> Interval:
    return -3.0, np.inf


_ENDS: Mapping[str, Callable[[ir.Node], Interval]] = {
    "Relu": _relu,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
}

Factors = tuple[Array, Array]


def _add(node: ir.Node, index: int, axis: int, rank: int, channels: int) -> Factors | None:
    other = _by_channel(node.inputs[1 - index], axis, rank, channels)
    return None if other is None else (np.ones(channels), other)


def _mul(node: ir.Node, index: int, axis: int, rank: int, channels: int) -> Factors | None:
    other = _by_channel(node.inputs[1 - index], axis, rank, channels)
    return None if other is None else (other, np.zeros(channels))


def _batch_norm(node: ir.Node, index: int, axis: int, rank: int, channels: int) -> Factors | None:
    parts = [_by_channel(value, -1, 1, channels) for value in node.inputs[1:5]]
    if axis != 1 - rank or any(part is None for part in parts) or len(node.outputs) > 1:
        return None
    gamma, beta, mean, variance = (part for part in parts if part is not None)
    scale = gamma / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return scale, beta - mean * scale


_AFFINE: Mapping[str, Callable[[ir.Node, int, int, int, int], Factors | None]] = {
    "Add": _add,
    "Mul": _mul,
    "BatchNormalization": _batch_norm,
}


def _by_channel(value: ir.Value | None, axis: int, rank: int, channels: int) -> Array | None:
    """A constant with one number for each channel, or one for all: float64 (channels,)."""
    view = None if value is None else view_of(value)
    if view is None or len(view.shape) > rank:
        return None
    shape = [1] * (rank - len(view.shape)) + list(view.shape)
    wide = shape[axis]
    if wide not in (1, channels) or int(np.prod(shape)) != wide:
        return None
    return np.broadcast_to(np.asarray(view.read(), np.float64).reshape(-1), channels)
