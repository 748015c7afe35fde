"""Poolings: sums, means and maxima over windows.

mean    each window hands dy / count to all that it covers
max     to the one element that it took, by the flat Indices output of the forward node
Lp      y = (sum |x|^p)^(1/p)       dx = sign(x) |x|^(p-1)  sum over windows of dy y^(1-p)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules.windows import Window, scatter_windows, window


def _window(call: Call) -> Window:
    return window(call, call.ints("kernel_shape"), call.x.shape[2:])


def _scatter(call: Call, dy: Tensor, w: Window) -> Tensor:
    """Add each output's gradient to every input of its window, channel by channel."""
    op = call.op
    single = op.reshape_before(dy, [-1, 1], call.y, 2)
    ones = op.constant(np.ones((1, 1, *w.kernel)), dy.dtype)
    dx = scatter_windows(ones, single, call.y.shape[2:], call.x, w, 1)
    return op.reshape_like(dx, call.x)


@vjp("AveragePool")
def average_pool(call: Call, dy: Tensor) -> Gradients:
    """The count leaves padding out unless `count_include_pad`, and always what `ceil_mode` adds."""
    w = _window(call)
    if any(w.pads) or call.int("ceil_mode"):
        return (_scatter(call, dy / _counts(call, w), w),)
    return (_scatter(call, dy * (1.0 / w.taps), w),)


def _counts(call: Call, w: Window) -> Tensor:
    """How many elements each window averages, 1 x 1 x output."""
    op, rank = call.op, w.rank
    spatial = op.Slice(op.shape_of(call.x), [2], [2 + rank], [0])
    shape = op.Concat(op.constant(np.array([1, 1])), spatial, axis=0)
    ones = op.Expand(op.constant(np.ones(()), call.x.dtype), shape)
    inside = op.Pad(ones, [0, 0, *w.begin, 0, 0, *w.end], float(call.int("count_include_pad")))
    reach = [extent + s for extent, s in zip(w.extent, w.strides, strict=True)]
    padded = op.Pad(inside, [0] * (4 + rank) + reach)  # as far as ceil_mode can reach
    counts = op.Conv(
        padded,
        op.constant(np.ones((1, 1, *w.kernel)), call.x.dtype),
        strides=list(w.strides),
        dilations=list(w.dilations),
    )
    sizes = op.Slice(op.shape_of(call.y), [2], [2 + rank], [0])
    return op.Slice(counts, [0] * rank, sizes, list(range(2, 2 + rank)))


@vjp("LpPool")
def lp_pool(call: Call, dy: Tensor) -> Gradients:
    """Zero where a whole window is zero."""
    op, p = call.op, float(call.int("p", 2))
    scaled = op.where(call.y > 0.0, dy * op.Pow(call.y, 1.0 - p), 0.0)
    spread = _scatter(call, scaled, _window(call))
    return (spread * op.Sign(call.x) * op.Pow(op.Abs(call.x), p - 1.0),)


@vjp("MaxPool")
def max_pool(call: Call, dy: Tensor, _: Tensor | None = None) -> Gradients:
    """Windows may overlap: what an element gets from several is added."""
    op, node, w = call.op, call.node, _window(call)
    if call.int("storage_order") and len(node.outputs) > 1:  # flat indices column by column
        attributes = {k: a.value for k, a in node.attributes.items() if k != "storage_order"}
        _, places = op.call("MaxPool", call.x, outputs=2, **attributes)
        places.value.type = ir.TensorType(ir.DataType.INT64)
    else:
        places = _indices(call)
    overlap = any(s < e for s, e in zip(w.strides, w.extent, strict=True))
    flat = op.Expand(
        op.constant(np.zeros(()), dy.dtype),
        op.Unsqueeze(op.size(call.x, None, ir.DataType.INT64), [0]),
    )
    dx = op.ScatterElements(
        flat,
        op.reshape(places, [-1]),
        op.reshape(dy, [-1]),
        axis=0,
        reduction="add" if overlap else "none",
    )
    return (op.reshape_like(dx, call.x),)


def _indices(call: Call) -> Tensor:
    """Where the maxima are: the second output, asked for if the node leaves it out."""
    node = call.node
    node.attributes.pop("storage_order", None)
    if len(node.outputs) < 2:
        node.resize_outputs(2)
    indices = node.outputs[1]
    if indices.type is None or not indices.name:
        indices.name = f"{call.y.value.name}.indices"
        indices.type, indices.shape = ir.TensorType(ir.DataType.INT64), call.y.value.shape
    return Tensor(indices, call.op)


@vjp("MaxUnpool")
def max_unpool(call: Call, dy: Tensor) -> Gradients:
    """Read back what was written."""
    op, (x, indices) = call.op, call.inputs[:2]
    read = op.Gather(op.reshape(dy, [-1]), op.reshape(indices, [-1]))
    return (op.reshape_like(read, x), None, None)[: len(call.inputs)]


def _spatial(call: Call) -> list[int]:
    return list(range(2, call.x.rank))


@vjp("GlobalAveragePool")
def global_average_pool(call: Call, dy: Tensor) -> Gradients:
    """An equal share to every element."""
    share = dy / call.op.size(call.x, _spatial(call), dy.dtype)
    return (call.op.Expand(share, call.op.shape_of(call.x)),)


@vjp("GlobalMaxPool")
def global_max_pool(call: Call, dy: Tensor) -> Gradients:
    """To the maxima, in equal shares."""
    chosen = call.op.cast(call.op.Equal(call.x, call.y), dy.dtype)
    count = call.op.sum(chosen, _spatial(call), keepdims=True)
    return (chosen * (dy / count),)


@vjp("GlobalLpPool")
def global_lp_pool(call: Call, dy: Tensor) -> Gradients:
    """As LpPool with one window."""
    op, p = call.op, float(call.int("p", 2))
    scaled = op.where(call.y > 0.0, dy * op.Pow(call.y, 1.0 - p), 0.0)
    return (scaled * op.Sign(call.x) * op.Pow(op.Abs(call.x), p - 1.0),)
