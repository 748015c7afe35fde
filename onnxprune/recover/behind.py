"""What a value may be and still be right: behind it, not all that it is can be told.

A Relu tells no negative number from another, a Clip none beyond its ends, and a MaxPool only hears of what is largest
in a window. So there is an interval of values that are as right as what the original gave, t:

    t alone            in general
    all below low      where t <= low: the function behind is constant there
    all above high     where t >= high
    all below T        where a MaxPool follows, and t is the largest of no window; T is the least of its windows' maxima

A fit only has to come out inside: its target is what it gives, clipped to the interval.

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
from onnxprune.calibrate.windows import Windows

__all__ = ["Behind", "behind"]

Array = np.ndarray
Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Behind:
    """What follows a value.

    Attributes:
        low: For each channel where the function behind begins not to be flat: float32 (channels,), may be infinite.
        high: Where it is flat again.
        pool: The MaxPool that follows, if one does.
    """

    low: Array
    high: Array
    pool: ir.Node | None = None

    def of(self, channels: Array) -> Behind:
        """The same for some channels, a boolean array."""
        return Behind(self.low[channels], self.high[channels], self.pool)

    def heard(self, target: Array) -> tuple[Array, Array]:
        """The least and the largest that the pool takes for the target, of its shape."""
        return (target, target) if self.pool is None else _heard(target, self.pool)

    def interval(self, least: Array, most: Array) -> tuple[Array, Array]:
        """The least and the largest that are as right as those, given as rows, (G, P, channels of a group)."""
        low, high = (end.reshape(len(least), 1, -1) for end in (self.low, self.high))
        below = np.where(least <= low, np.float32(-np.inf), np.minimum(least, high))
        above = np.where(most >= high, np.float32(np.inf), np.maximum(most, low))
        return below, above


def _heard(target: Array, pool: ir.Node) -> tuple[Array, Array]:
    """The interval in front of a MaxPool."""
    windows = Windows.of(pool, target.shape[2:], pool.attributes.get_ints("kernel_shape"))
    padded = windows.pad(target, -np.inf)
    largest = np.max([padded[place] for place in windows.taps()], axis=0)
    least, most = np.full_like(padded, -np.inf), np.full_like(padded, np.inf)
    for place in windows.taps():
        part = padded[place]
        least[place] = np.where(part == largest, part, least[place])
        most[place] = np.minimum(most[place], largest)
    inside = windows.inside()
    return least[inside], most[inside]


def behind(value: ir.Value, axis: int, rank: int, channels: int) -> Behind | None:
    """What follows a value until it is told apart no more.

    Args:
        value: The value.
        axis: Its axis of channels, from the end.
        rank: How many axes it has.
        channels: How many channels.

    Returns:
        None where all that it is can be told behind it, or several nodes read it.
    """
    scale, shift, pool = np.ones(channels), np.zeros(channels), None
    ends = (-np.inf, np.inf)
    while len(uses := value.uses()) == 1 and not value.is_graph_output():
        ((node, index),) = uses
        if node.domain:
            break
        if node.op_type in _ENDS and ends == (-np.inf, np.inf):
            ends = _ENDS[node.op_type](node)
        elif node.op_type == "MaxPool" and pool is None and axis == 1 - rank and _plain(node):
            pool = node
        else:
            step = _AFFINE.get(node.op_type) if pool is None and np.isinf(ends).all() else None
            factors = None if step is None else step(node, index, axis, rank, channels)
            if factors is None:
                break
            scale, shift = scale * factors[0], shift * factors[0] + factors[1]
        value = node.outputs[0]
    pool = pool if (scale > 0).all() else None
    bounded = not np.isnan(ends).any() and np.isfinite(ends).any() and bool((scale != 0).all())
    if not bounded and pool is None:
        return None
    low, high = np.full(channels, -np.inf), np.full(channels, np.inf)
    if bounded:
        sides = [(end - shift) / scale for end in ends]
        low, high = np.minimum(*sides), np.maximum(*sides)
    return Behind(low.astype(np.float32), high.astype(np.float32), pool)


def _plain(pool: ir.Node) -> bool:
    """Whether a MaxPool only gives maxima, of windows whose places are simple to tell."""
    return (
        sum(bool(output.name) for output in pool.outputs) == 1
        and not pool.attributes.get_int("ceil_mode", 0)
        and not pool.attributes.get_int("storage_order", 0)
    )


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
