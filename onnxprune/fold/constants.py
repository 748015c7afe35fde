"""Which channels are the same number whatever the model is fed, by the weights alone.

For every value and every Dim of its axes: the number that all elements of an index are, or NaN where that is not known.
It is known

1. of weights, by looking;
2. of sums with constant weights (`contractions`), where all inputs with weights are known, and are zero where a
   padded border would mix zeros in;
3. behind a BatchNormalization whose scale is zero, and behind any of a constant;
4. behind an op that works element by element, of constants, by running it on them; a product with zero is zero;
5. behind an op that moves elements, or takes maxima or means of those of one index.

Anything else is not known. So dead units are found (rows of zeros, as group lasso leaves them), and what follows from
them: the Relu of a negative bias, the gate that is always shut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.contraction import Contraction, contractions, data_axis
from onnxprune.dims import Axis, Dim, Tracing, Use, leaves, positions, size
from onnxprune.dims.rules.elementwise import BROADCAST, UNARY
from onnxprune.errors import ModelError
from onnxprune.graph import constant
from onnxprune.runtime.sessions import run, session

__all__ = [
    "Known",
    "by_index",
    "by_position",
    "data_axis",
    "known_constants",
    "pads",
    "silent",
    "sums_of",
]

Array = np.ndarray
Known = Mapping[Dim, Array]
"""By Dim, for each of its indices the number, NaN where it is not known: float64, (dim.size,)."""

DOMAINS = ("", "com.microsoft")
MOVES = (
    "Identity Reshape Flatten Transpose Squeeze Unsqueeze Split Slice Concat Gather DepthToSpace SpaceToDepth Expand "
    "Tile"
)
WITHIN = "MaxPool GlobalAveragePool GlobalMaxPool ReduceMean ReduceMax ReduceMin"
WITH_BORDERS = "AveragePool LpPool GlobalLpPool Pad Resize Upsample ReduceSum"

ELEMENTWISE = frozenset(f"{UNARY} {BROADCAST} FastGelu QuickGelu BiasGelu".split())
MOVING = frozenset(MOVES.split())
"""Ops whose results are elements of their operands."""
SAME = MOVING | frozenset(WITHIN.split())
"""Ops whose results are elements of one index, or their mean or extremes."""
SAME_IF_ZERO = frozenset(WITH_BORDERS.split())
"""Ops that take zeros of an index to zeros, but may mix in a border, or count."""
LARGEST_LOOKED_AT = 1 << 20
"""Bytes of weights up to which operands of elementwise ops are looked at."""
FIRST_LOOK = 32
"""Elements of a row that are looked at first: few rows that begin with so many zeros hold anything else."""


def known_constants(tracing: Tracing) -> Mapping[ir.Value, Known]:
    """What is known of the values of the main graph; values of which nothing is known are left out."""
    found: dict[ir.Value, Known] = {}
    sums = {
        each.output: each for each in contractions(tracing, most=None) if each.output is not None
    }
    for node in tracing.model.graph:
        if node.domain not in DOMAINS:
            continue
        for output in node.outputs:
            axes = tracing.axes.get(output)
            if axes is None:
                continue
            if output in sums:
                known = _sum(sums[output], tracing, found.get(sums[output].data, {}))
            elif node.op_type == "BatchNormalization":
                known = _normalised(node, tracing, found)
            elif node.op_type in ELEMENTWISE:
                known = _elementwise(node, axes, tracing, found)
            elif node.op_type in SAME or node.op_type in SAME_IF_ZERO:
                known = _moved(node, axes, tracing, found)
            else:
                continue
            if known:
                found[output] = known
    return found


def sums_of(found: Iterable[Contraction]) -> Mapping[ir.Node, list[Contraction]]:
    """Contractions by node; a recurrent one has two."""
    by_node: dict[ir.Node, list[Contraction]] = {}
    for each in found:
        by_node.setdefault(each.node, []).append(each)
    return by_node


def silent(each: Contraction, over: Array | None = None, *, outputs: bool = False) -> Array:
    """Inputs (or outputs) of a contraction of which all weights are zero.

    Args:
        each: The contraction.
        over: Of outputs: which inputs count, (inputs,); None: all.
        outputs: Whether outputs are asked about.

    Returns:
        A boolean array along the data's axis (or the output's).
    """
    weight = each.arranged(each.view.read())
    groups, _, columns = weight.shape
    if outputs:
        counts = np.ones(groups * columns, bool) if over is None else np.repeat(over, each.taps)
        counts = counts.reshape(groups, columns)
        return np.concatenate([_zero_rows(w, c) for w, c in zip(weight, counts, strict=True)])
    every = np.ones(weight.shape[1], bool)
    if each.kind == "recurrent":  # all directions read the same data
        found = np.stack([_zero_rows(w.T, every) for w in weight])
        return np.asarray(found.all(0)) if len(found) > 1 else found[0]
    found = np.concatenate([_zero_rows(w.T, every) for w in weight])
    return np.asarray(found.reshape(-1, each.taps).all(1))


def _zero_rows(matrix: Array, counts: Array) -> Array:
    """Which rows are zero in all the columns that count; only rows that begin with zeros are read to the end."""
    rows, columns = np.arange(len(matrix)), np.flatnonzero(counts)
    for part in (columns[:FIRST_LOOK], columns[FIRST_LOOK:]):
        if len(rows) and len(part):
            rows = rows[~(matrix[np.ix_(rows, part)] != 0).any(1)]
    return np.isin(np.arange(len(matrix)), rows)


def by_position(axis: Axis, known: Known) -> Array:
    """What is known along an axis: float64, (size(axis),), NaN where nothing is."""
    found = np.full(size(axis), np.nan)
    for dim in dict.fromkeys(leaves(axis)):
        if dim in known:
            for row in positions(axis, dim):
                found[row >= 0] = np.where(
                    np.isnan(found[row >= 0]), known[dim][row[row >= 0]], found[row >= 0]
                )
    return found


def by_index(axis: Axis, values: Array) -> dict[Dim, Array]:
    """For each Dim of an axis the indices of which all positions have one known value."""
    found = {}
    for dim in dict.fromkeys(leaves(axis)):
        low, high = np.full(dim.size, np.inf), np.full(dim.size, -np.inf)
        for row in positions(axis, dim):
            with np.errstate(invalid="ignore"):  # NaN stays NaN
                np.minimum.at(low, row[row >= 0], values[row >= 0])
                np.maximum.at(high, row[row >= 0], values[row >= 0])
        one = np.where(low == high, low, np.nan)
        if not np.isnan(one).all():
            found[dim] = one
    return found


def _sum(each: Contraction, tracing: Tracing, data: Known) -> dict[Dim, Array]:
    """Case 2."""
    assert each.output is not None
    x = by_position(data_axis(each, tracing), data)
    usable = ~np.isnan(x) & ((x == 0) | (not pads(each.node)))
    fixed = silent(each, ~usable, outputs=True)
    if not fixed.any():
        return {}
    weight = each.arranged(each.view.read())
    groups, outputs, _ = weight.shape
    columns = np.repeat(np.where(usable, x, 0), each.taps).reshape(groups, -1)
    values = np.full(groups * outputs, np.nan)
    bias = _bias(each)
    if bias is None:
        return {}
    for row in np.flatnonzero(fixed):
        g, m = divmod(int(row), outputs)
        values[row] = float(weight[g, m].astype(np.float64) @ columns[g]) + bias[row % len(bias)]
    place = 1 if each.kind == "conv" else -2 if each.kind == "left" else -1
    return by_index(tracing.axes[each.output][place], values)


def pads(node: ir.Node) -> bool:
    """Whether a convolution reads zeros beyond the border."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return False
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    return auto.startswith("SAME") or any(node.attributes.get_ints("pads", ()) or ())


def _bias(each: Contraction) -> Array | None:
    """What is added to every output, (outputs,) or (1,); None where it is not one constant an output."""
    value = (
        each.node.inputs[each.bias]
        if each.bias is not None and each.bias < len(each.node.inputs)
        else None
    )
    if value is None:
        return np.zeros(1)
    tensor = constant(value)
    if tensor is None or math.prod(tensor.shape.numpy()) not in (1, tensor.shape.numpy()[-1]):
        return None
    return np.asarray(tensor.numpy(), np.float64).reshape(-1)


def _normalised(
    node: ir.Node, tracing: Tracing, known: Mapping[ir.Value, Known]
) -> dict[Dim, Array]:
    """Case 3."""
    tensors = [None if v is None else constant(v) for v in node.inputs[1:5]]
    data = node.inputs[0]
    if data is None or None in tensors or node.attributes.get_int("training_mode", 0) != 0:
        return {}
    axis = tracing.axes[node.outputs[0]][1]
    scale, bias, mean, variance = (np.asarray(t.numpy(), np.float64) for t in tensors if t)
    x = by_position(axis, known.get(data, {}))
    moved = scale * (x - mean) / np.sqrt(variance + node.attributes.get_float("epsilon", 1e-5))
    return by_index(axis, np.where(scale == 0, 0, moved) + bias)


def _elementwise(
    node: ir.Node, axes: Sequence[Axis], tracing: Tracing, known: Mapping[ir.Value, Known]
) -> dict[Dim, Array]:
    """Case 4."""
    found = {}
    for dim in dict.fromkeys(dim for axis in axes for dim in leaves(axis)):
        if dim.frozen is not None:
            continue
        operands = [_operand(node, i, dim, tracing, known) for i in range(len(node.inputs))]
        present = [each for each in operands if each is not None]
        unknown = np.any([np.isnan(np.broadcast_to(each, dim.size)) for each in present], axis=0)
        values = np.full(dim.size, np.nan)
        if not unknown.all() and (ran := _run(node, operands, dim.size)) is not None:
            values = np.where(unknown, np.nan, ran)
        if node.op_type == "Mul":
            zero = np.any([np.broadcast_to(each, dim.size) == 0 for each in present], axis=0)
            values = np.where(zero, 0.0, values)
        if not np.isnan(values).all():
            found[dim] = values
    return found


def _operand(
    node: ir.Node, index: int, dim: Dim, tracing: Tracing, known: Mapping[ir.Value, Known]
) -> Array | None:
    """What an operand is at each index of a Dim: (dim.size,), or () where it is one number; None where absent."""
    value = node.inputs[index]
    if value is None:
        return None
    weight = tracing.constants.get(value)
    if weight is None:
        found: Array = known.get(value, {}).get(dim, np.full(dim.size, np.nan))
        return found
    if weight.nbytes > LARGEST_LOOKED_AT or not weight.dtype.is_floating_point():
        return np.full(dim.size, np.nan)
    array = np.asarray(weight.array(), np.float64)
    if array.size and (array == array.flat[0]).all():
        return np.asarray(array.flat[0])
    use = tracing.by_input.get((node, index))
    return _along(array, use, dim)


def _along(array: Array, use: Use | None, dim: Dim) -> Array:
    """The numbers of a weight along the one axis that a Dim is part of."""
    for k, axis in enumerate(use.axes if use is not None else ()):
        if dim in leaves(axis):
            rows = np.moveaxis(array, k, 0).reshape(array.shape[k], -1)
            one = np.where((rows == rows[:, :1]).all(1), rows[:, 0], np.nan)
            return by_index(axis, one).get(dim, np.full(dim.size, np.nan))
    return np.full(dim.size, np.nan)


def _run(node: ir.Node, operands: Sequence[Array | None], n: int) -> Array | None:
    """The op on known numbers; None where onnxruntime does not take them."""
    kind = ir.TensorType(ir.DataType.FLOAT)
    inputs = [
        None if each is None else ir.Value(name=f"x{k}", type=kind, shape=ir.Shape(each.shape))
        for k, each in enumerate(operands)
    ]
    one = ir.Node(node.domain, node.op_type, inputs, node.attributes.values(), num_outputs=1)
    one.outputs[0].name = "y"
    opsets = node.graph.opset_imports if node.graph is not None else {"": 17}
    graph = ir.Graph(
        [each for each in inputs if each is not None],
        one.outputs,
        nodes=[one],
        opset_imports=opsets,
        name="one",
    )
    feed = {
        f"x{k}": np.asarray(np.where(np.isnan(each), 1.0, each), np.float32)
        for k, each in enumerate(operands)
        if each is not None
    }
    try:
        (result,) = run(session(ir.Model(graph, ir_version=8), optimize=False), feed)
    except ModelError:
        return None
    return np.broadcast_to(np.asarray(result, np.float64), n)


def _moved(
    node: ir.Node,
    axes: Sequence[Axis],
    tracing: Tracing,
    known: Mapping[ir.Value, Known],
) -> dict[Dim, Array]:
    """Case 5: what all inputs that have the Dim agree on."""
    found = {}
    for dim in dict.fromkeys(dim for axis in axes for dim in leaves(axis)):
        of = [
            known.get(value, {}).get(dim, np.full(dim.size, np.nan))
            for k, value in enumerate(node.inputs)
            if value is not None
            and any(dim in leaves(axis) for axis in tracing.input_axes(node, k) or ())
        ]
        if not of:
            continue
        values = np.where(np.all([each == of[0] for each in of], axis=0), of[0], np.nan)
        if node.op_type in SAME_IF_ZERO:
            values = np.where(values == 0, 0.0, np.nan)
        if not np.isnan(values).all():
            found[dim] = values
    return found
