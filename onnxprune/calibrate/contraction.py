"""What multiplies and sums: every node with a constant float weight, seen as one matrix product.

A `Contraction` reads a node as  y = W x  at *positions* (pixels, tokens, time steps), W of shape (G, M, K) with G
groups that do not mix, M outputs and K inputs a group, x what the weight meets at one position:

1. Conv: x is a patch, K = channels of a group times kernel taps, channels outermost.
2. Gemm, MatMul: x is a row of the data.
3. ConvTranspose: x is one input pixel, M = outputs times taps; what it makes is summed into overlapping patches after.
4. LSTM, GRU, RNN: the gates' input and recurrence matrices, a group for each direction; x is what enters, or the state.

In 1 and 2 the sums are a value of the graph (`output`), in 3 and 4 they are not. A weight may reach its node through
Reshape, Transpose and the like; `read` and `write` go through them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.views import View, view_of
from onnxprune.calibrate.windows import Windows
from onnxprune.dims import Axis, Tracing, size

__all__ = ["MOST_COLUMNS", "Contraction", "contractions", "data_axis"]

MOST_COLUMNS = 6144
"""Second moments of more columns than this are not gathered: they would take 300 MB and more each."""

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Contraction:
    """A node that multiplies data by a constant.

    Attributes:
        node: The node.
        kind: How x and W are read.
        data: The value that holds x.
        view: The weight, and how it reaches the node.
        index: Which input of the node the weight is.
        input_axis: The axis of the weight that is summed over (taps apart).
        output_axis: The axis of the weight that stays.
        output: The value that holds y, if there is one.
        groups: G.
        bias: Which input adds to y, if the node can take one.
    """

    node: ir.Node
    kind: Literal["conv", "matmul", "left", "transposed", "recurrent"]
    data: ir.Value
    view: View
    index: int
    input_axis: Axis
    output_axis: Axis
    output: ir.Value | None
    groups: int = 1
    bias: int | None = None

    @property
    def name(self) -> str:
        """Of what it gives; the two of a recurrent layer are told apart by the input that the weight is."""
        return f"{self.node.outputs[0].name}:{self.index}"

    @property
    def names(self) -> list[str]:
        """Of its node, of what that reads, and of its weight as it is stored."""
        values = (self.view.source, *self.node.inputs)
        read = [value.name for value in values if value is not None and value.name]
        return [*read, self.node.name or ""]

    @property
    def columns(self) -> int:
        """K, the columns of W."""
        if self.kind == "transposed":
            return self.view.shape[0] // self.groups
        return size(self.input_axis) * self.taps

    @property
    def taps(self) -> int:
        """Columns of W that belong to one index of the input axis."""
        return math.prod(self.view.shape[2:]) if self.kind == "conv" else 1

    def matrix(self, weight: Array, groups: int | None = None) -> Array:
        """The weight, as its node reads it, as float64 (G, M, K)."""
        return np.asarray(self.arranged(weight, groups), np.float64)

    def arranged(self, w: Array, groups: int | None = None) -> Array:
        """An array of the weight's shape as (G, M, K)."""
        g = self.groups if groups is None else groups
        if self.kind == "conv":
            return w.reshape(g, w.shape[0] // g, -1)
        if self.kind == "transposed":
            return w.reshape(g, w.shape[0] // g, -1).transpose(0, 2, 1)
        if self.kind == "recurrent":
            return w
        if self.kind == "left":
            return w[None]
        return (w if self._transposed else w.T)[None]

    def weight(self, matrix: Array, shape: Sequence[int]) -> Array:
        """The inverse of `matrix`, for a weight of that shape."""
        if self.kind == "transposed" or (self.kind == "matmul" and not self._transposed):
            matrix = matrix.transpose(0, 2, 1)
        return matrix.reshape(tuple(shape))

    @property
    def _transposed(self) -> bool:
        """Whether the weight of a matrix product has its outputs first."""
        return self.node.op_type == "Gemm" and bool(self.node.attributes.get_int("transB", 0))

    def positions(self, x: Array, kernel: Sequence[int]) -> int:
        """How many positions a sample has (all samples together where the first axis is not the samples')."""
        if self.kind == "conv":
            return math.prod(Windows.of(self.node, x.shape[2:], kernel).counts)
        if self.kind in ("transposed", "recurrent"):
            return math.prod(x.shape[2:]) if self.kind == "transposed" else x.shape[0]
        if x.ndim < 2:
            return 1
        side = x.shape[1:-1] if self.kind == "matmul" else (*x.shape[1:-2], x.shape[-1])
        return math.prod(side)

    def inputs(self, x: Array, where: Array | None, kernel: Sequence[int], groups: int) -> Array:
        """What the weight meets at some positions.

        Args:
            x: The data of n samples.
            where: Flat positions within a sample; None: all.
            kernel: Size of the convolution's kernel.
            groups: G (a cut may have left fewer groups).

        Returns:
            Float32, (G, n * positions, K), samples outermost.
        """
        if self.kind == "conv":
            return _grouped(Windows.of(self.node, x.shape[2:], kernel).patches(x, where), groups)
        if self.kind == "transposed":
            return _grouped(_picked(x.reshape(*x.shape[:2], -1), where), groups)
        if self.kind == "recurrent":
            states = x if x.ndim == 4 else x[:, None]  # (time, direction, sample, feature)
            states = np.broadcast_to(states, (x.shape[0], groups, *states.shape[2:]))
            moved = states.transpose(1, 2, 0, 3)
            return _rows(moved if where is None else moved[:, :, where], 2)
        if self.kind == "left":
            x = np.swapaxes(x, -1, -2)
        rows = x.reshape(x.shape[0] if x.ndim > 1 else 1, -1, x.shape[-1])
        return _rows(rows if where is None else rows[:, where], 1)[None]

    def outputs(self, y: Array, where: Array | None, groups: int) -> Array:
        """What comes out at the same positions, float32, (G, n * positions, M)."""
        if self.kind == "conv":
            return _grouped(_picked(y.reshape(*y.shape[:2], -1), where), groups)
        if self.kind == "left":
            y = np.swapaxes(y, -1, -2)
        rows = y.reshape(y.shape[0] if y.ndim > 1 else 1, -1, y.shape[-1])
        return _rows(rows if where is None else rows[:, where], 1)[None]


def _rows(array: Array, leading: int) -> Array:
    """Merges the axes before the last one into `leading - 1` untouched ones and one of rows."""
    kept = array.shape[: leading - 1]
    return np.ascontiguousarray(array, np.float32).reshape(*kept, -1, array.shape[-1])


def _picked(maps: Array, where: Array | None) -> Array:
    """(n, channels, positions) -> (n, positions, channels), some of the positions."""
    return (maps if where is None else maps[:, :, where]).transpose(0, 2, 1)


def _grouped(rows: Array, groups: int) -> Array:
    """(n, positions, G * k) -> (G, n * positions, k)."""
    n, p, c = rows.shape
    split = rows.reshape(n * p, groups, c // groups).transpose(1, 0, 2)
    return np.ascontiguousarray(split, np.float32)


def contractions(
    tracing: Tracing, only: Iterable[ir.Node] | None = None, most: int | None = MOST_COLUMNS
) -> list[Contraction]:
    """The contractions of the main graph, in graph order; not those of more than `most` columns."""
    chosen = None if only is None else set(only)
    found: list[Contraction] = []
    for node in tracing.model.graph:
        if (chosen is None or node in chosen) and not node.domain:
            found += _RULES[node.op_type](node, tracing) if node.op_type in _RULES else []
    return [each for each in found if most is None or each.columns <= most]


def _weight(
    node: ir.Node, index: int, tracing: Tracing, rank: int
) -> tuple[View, Sequence[Axis]] | None:
    """A constant float operand of that rank (0: of two axes or more) and its axes."""
    value = node.inputs[index] if index < len(node.inputs) else None
    view = None if value is None else view_of(value)
    axes = tracing.input_axes(node, index)
    if view is None or axes is None or (len(view.shape) != rank if rank else len(view.shape) < 3):
        return None
    return view, axes


def _data(node: ir.Node, index: int, tracing: Tracing) -> ir.Value | None:
    value = node.inputs[index]
    return (
        value
        if value is not None and value in tracing.measured.shapes and view_of(value) is None
        else None
    )


def _conv(node: ir.Node, tracing: Tracing) -> list[Contraction]:
    operand, data = _weight(node, 1, tracing, 0), _data(node, 0, tracing)
    if operand is None or data is None:
        return []
    view, axes = operand
    groups = node.attributes.get_int("group", 1)
    return [Contraction(node, "conv", data, view, 1, axes[1], axes[0], node.outputs[0], groups, 2)]


def _conv_transpose(node: ir.Node, tracing: Tracing) -> list[Contraction]:
    operand, data = _weight(node, 1, tracing, 0), _data(node, 0, tracing)
    if operand is None or data is None:
        return []
    view, axes = operand
    groups = node.attributes.get_int("group", 1)
    return [Contraction(node, "transposed", data, view, 1, axes[0], axes[1], None, groups)]


def _gemm(node: ir.Node, tracing: Tracing) -> list[Contraction]:
    operand, data = _weight(node, 1, tracing, 2), _data(node, 0, tracing)
    plain = node.attributes.get_float("alpha", 1.0) == 1.0 == node.attributes.get_float("beta", 1.0)
    if operand is None or data is None or not plain or node.attributes.get_int("transA", 0) != 0:
        return []
    view, axes = operand
    out, summed = axes if node.attributes.get_int("transB", 0) else axes[::-1]
    return [Contraction(node, "matmul", data, view, 1, summed, out, node.outputs[0], 1, 2)]


def _matmul(node: ir.Node, tracing: Tracing) -> list[Contraction]:
    right, left = _weight(node, 1, tracing, 2), _weight(node, 0, tracing, 2)
    if right is not None and (data := _data(node, 0, tracing)) is not None:
        view, (summed, out) = right
        return [Contraction(node, "matmul", data, view, 1, summed, out, node.outputs[0])]
    if left is not None and (data := _data(node, 1, tracing)) is not None:
        view, (out, summed) = left
        rank = len(tracing.measured.shapes[data])
        return (
            []
            if rank < 2
            else [Contraction(node, "left", data, view, 0, summed, out, node.outputs[0])]
        )
    return []


def _recurrent(node: ir.Node, tracing: Tracing) -> list[Contraction]:
    found = []
    if node.attributes.get_int("layout", 0):
        return []
    for index, data in ((1, node.inputs[0]), (2, node.outputs[0])):
        operand = _weight(node, index, tracing, 3)
        if operand is not None and data is not None and data in tracing.measured.shapes:
            view, axes = operand
            groups = view.shape[0]
            found.append(
                Contraction(node, "recurrent", data, view, index, axes[2], axes[1], None, groups)
            )
    return found


_RULES = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
}


def data_axis(each: Contraction, tracing: Tracing) -> Axis:
    """The axis of the data that a contraction sums over: G groups of inputs."""
    place = {"conv": 1, "transposed": 1, "left": -2}.get(each.kind, -1)
    return tracing.axes[each.data][place]
