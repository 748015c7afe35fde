"""Raising a graph to opset 18, node by node.

Rules then know one form of every op, and may emit what old opsets lack (ScatterElements that adds,
axes as inputs, Where). Only ops whose meaning or signature changed are rewritten; each change is
one function here, marked with the opset that made it. Everything else means the same at 18 as in
its own opset. Models at 18 or above stay at theirs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.errors import ModelError
from onnxprune.graph.flow import subgraphs

__all__ = ["LOWEST", "raise_opset"]

LOWEST = 18
_IR_VERSION = 8  # the first that knows opset 18

Change = Callable[[Ops, ir.Node], None]
"""Writes to `op` what replaces the node, or edits and re-appends the node."""

_CHANGES: dict[str, list[tuple[int, Change]]] = {}


def raise_opset(model: ir.Model, prefix: str = "raised/") -> bool:
    """Raise `model`, in place, to opset 18 if it is below.

    Args:
        model: At opset 7 or above, its functions inlined.
        prefix: Start of the names of new values.

    Returns:
        Whether anything had to change.

    Raises:
        ModelError: The opset is below 7, or the model has a Scan of opset 8.
    """
    version = model.opset_imports.get("", LOWEST)
    if version >= LOWEST:
        return False
    if version < 7:
        raise ModelError(
            f"opset {version} is too old for gradients; convert the model to 7 or above"
        )
    _raise_graph(model.graph, version, prefix)
    model.opset_imports[""] = LOWEST
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)
    return True


def _raise_graph(graph: ir.Graph, version: int, prefix: str) -> None:
    op = Ops(graph, prefix)
    nodes = list(graph)
    for node in nodes:
        graph.remove(node)
    for index, node in enumerate(nodes):
        for inner in subgraphs(node):
            _raise_graph(inner, version, f"{prefix}{index}/")
        node.version = None
        changes = _CHANGES.get(node.op_type, []) if not node.domain else []
        change = next((change for since, change in changes if version < since), None)
        if change is None:
            graph.append(node)
        else:
            change(op, node)


def _changed(since: int, *op_types: str) -> Callable[[Change], Change]:
    def register(change: Change) -> Change:
        for op_type in op_types:
            _CHANGES.setdefault(op_type, []).append((since, change))
        return change

    return register


def _in(op: Ops, node: ir.Node, index: int = 0) -> Tensor:
    value = node.inputs[index]
    assert value is not None
    return Tensor(value, op)


def _replace(node: ir.Node, *results: Tensor) -> None:
    """Let `results` take the place, names and types of the node's outputs."""
    for old, result in zip(node.outputs, results, strict=False):
        new = result.value
        new.name, old.name = old.name, None
        new.type, new.shape = old.type or new.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    for index in range(len(node.inputs)):
        node.replace_input_with(index, None)


def _attribute_to_input(op: Ops, node: ir.Node, name: str, index: int, dtype: Any) -> None:
    """Attribute `name` becomes input `index`."""
    attribute = node.attributes.pop(name, None)
    if attribute is not None:
        if len(node.inputs) <= index:
            node.resize_inputs(index + 1)
        array = np.array(attribute.value, dtype)
        node.replace_input_with(index, op.constant(array).value)


@_changed(13, "Squeeze", "Unsqueeze", "ReduceSum")
@_changed(18, "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2")
@_changed(18, "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare")
def _axes_input(op: Ops, node: ir.Node) -> None:
    _attribute_to_input(op, node, "axes", 1, np.int64)
    op.graph.append(node)


@_changed(13, "Split")
def _split_input(op: Ops, node: ir.Node) -> None:
    _attribute_to_input(op, node, "split", 1, np.int64)
    _split_count(op, node)


@_changed(18, "Split")
def _split_count(op: Ops, node: ir.Node) -> None:
    if len(node.inputs) < 2 or node.inputs[1] is None:
        node.attributes.add(ir.AttrInt64("num_outputs", len(node.outputs)))
    op.graph.append(node)


@_changed(10, "Slice")
def _slice_inputs(op: Ops, node: ir.Node) -> None:
    for index, name in enumerate(("starts", "ends", "axes")):
        _attribute_to_input(op, node, name, index + 1, np.int64)
    op.graph.append(node)


@_changed(11, "Pad")
def _pad_inputs(op: Ops, node: ir.Node) -> None:
    value = node.attributes.pop("value", None)
    _attribute_to_input(op, node, "pads", 1, np.int64)
    node.resize_inputs(3)
    fill = op.constant(np.array(0.0 if value is None else value.as_float()), _in(op, node).dtype)
    node.replace_input_with(2, fill.value)
    op.graph.append(node)


@_changed(11, "Clip")
def _clip_inputs(op: Ops, node: ir.Node) -> None:
    dtype = _in(op, node).dtype.numpy()
    _attribute_to_input(op, node, "min", 1, dtype)
    _attribute_to_input(op, node, "max", 2, dtype)
    op.graph.append(node)


@_changed(10, "TopK")
def _topk_input(op: Ops, node: ir.Node) -> None:
    k = node.attributes.pop("k").as_int()
    node.resize_inputs(2)
    node.replace_input_with(1, op.constant(np.array([k], np.int64)).value)
    op.graph.append(node)


@_changed(12, "Dropout")
def _dropout_inputs(op: Ops, node: ir.Node) -> None:
    node.attributes.pop("ratio", None)  # it changes nothing at inference
    if len(node.outputs) > 1:  # the mask was of the input's type
        if node.outputs[1].uses() or node.outputs[1].is_graph_output():
            raise ModelError(f"node {node.name}: the mask of an old Dropout is not supported")
        node.resize_outputs(1)
    op.graph.append(node)


@_changed(9, "BatchNormalization")
def _batch_normalization(op: Ops, node: ir.Node) -> None:
    spatial = node.attributes.pop("spatial", None)
    if spatial is not None and spatial.as_int() == 0:
        raise ModelError(f"node {node.name}: BatchNormalization with spatial=0 is not supported")
    op.graph.append(node)


@_changed(11, "Scatter")
def _scatter(op: Ops, node: ir.Node) -> None:
    node.op_type = "ScatterElements"
    op.graph.append(node)


@_changed(16, "RoiAlign")
def _roi_align(op: Ops, node: ir.Node) -> None:
    node.attributes.add(ir.AttrString("coordinate_transformation_mode", "output_half_pixel"))
    op.graph.append(node)


@_changed(9, "Scan")
def _scan(op: Ops, node: ir.Node) -> None:
    raise ModelError(f"node {node.name}: Scan of opset 8 is not supported; convert the model")


@_changed(10, "Upsample")
@_changed(11, "Resize")
def _resize(op: Ops, node: ir.Node) -> None:
    """Coordinates were divided by the scale; nearest rounded down, and up where shrinking."""
    scales_attribute = node.attributes.get("scales")
    if scales_attribute is not None:
        scales = op.constant(np.array(scales_attribute.as_floats(), np.float32))
    else:
        scales = _in(op, node, 1)
    known = scales.constant()
    shrinks = node.op_type == "Resize" and known is not None and bool((known < 1).any())
    mode = node.attributes.get_string("mode", "nearest")
    result = op.Resize(
        _in(op, node),
        None,
        scales,
        mode="linear" if mode == "bilinear" else mode,
        coordinate_transformation_mode="asymmetric",
        nearest_mode="ceil" if shrinks else "floor",
    )
    _replace(node, result)


@_changed(10, "ImageScaler")
def _image_scaler(op: Ops, node: ir.Node) -> None:
    """Experimental once: x scale + bias of each channel."""
    x, bias = _in(op, node), np.array(node.attributes["bias"].as_floats())
    shift = op.constant(bias.reshape(-1, *[1] * (x.rank - 2)), x.dtype)
    _replace(node, x * node.attributes.get_float("scale", 1.0) + shift)


@_changed(10, "Affine")
def _affine(op: Ops, node: ir.Node) -> None:
    """Experimental once: alpha x + beta."""
    scaled = _in(op, node) * node.attributes.get_float("alpha", 1.0)
    _replace(node, scaled + node.attributes.get_float("beta", 0.0))


@_changed(10, "Crop")
def _crop(op: Ops, node: ir.Node) -> None:
    """Experimental once: borders (left, top, right, bottom) cut off, or a size kept behind them."""
    left, top, right, bottom = node.attributes["border"].as_ints()
    ends, size = [-bottom or 2**31, -right or 2**31], node.attributes.get("scale")
    if size is not None:
        ends = [start + n for start, n in zip((top, left), size.as_ints(), strict=True)]
    _replace(node, op.Slice(_in(op, node), [top, left], ends, [2, 3]))


@_changed(13, "Softmax", "LogSoftmax", "Hardmax")
def _softmax(op: Ops, node: ir.Node) -> None:
    """The axes from `axis` (1 by default) on were one; they still are where those behind it are of size 1."""
    x = _in(op, node)
    axis = node.attributes.get_int("axis", 1) % x.rank
    if all(size == 1 for size in x.shape[axis + 1 :]):
        node.attributes.add(ir.AttrInt64("axis", axis))
        op.graph.append(node)
        return
    flat = op.call(node.op_type, op.Flatten(x, axis=axis), axis=-1)[0]
    _replace(node, op.Reshape(flat, op.Shape(x)))
