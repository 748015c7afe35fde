"""Bodies of If, Loop and Scan: what they capture, and each of them as a model of its own."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import clone, constant
from onnxprune.graph.flow import outer_values

__all__ = ["as_model", "body_feed"]


def as_model(
    graph: ir.Graph, owner: ir.Model, outer: Mapping[ir.Value, np.ndarray]
) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """The graph as a model; captured values become inputs (given back with what to feed) or initializers."""
    if graph is owner.graph:
        return clone(owner), {}
    copy = graph.clone(allow_outer_scope_values=True)
    feed: dict[str, np.ndarray] = {}
    for value in outer_values(graph):
        tensor = constant(value)
        new = ir.Value(name=value.name, const_value=tensor)
        if tensor is not None:
            new.dtype, new.shape = tensor.dtype, ir.Shape(tensor.shape.numpy())
            copy.register_initializer(new)
        elif value in outer:
            array = outer[value]
            new.dtype, new.shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
            copy.inputs.append(new)
            feed[value.name or ""] = array
        else:
            raise ModelError(f"a body captures {value.name!r}, which was not measured")
        for node in copy.all_nodes():
            for i, used in enumerate(node.inputs):
                if used is value:
                    node.replace_input_with(i, new)
    copy.opset_imports.update(owner.opset_imports)
    model = ir.Model(copy, ir_version=owner.ir_version)
    model.meta.update(owner.meta)
    return model, feed


def body_feed(
    node: ir.Node, body: ir.Graph, known: Mapping[ir.Value, np.ndarray]
) -> dict[str, np.ndarray]:
    """What a body is fed in its first round."""
    given = [None if value is None else _array(value, known) for value in node.inputs]
    if node.op_type == "Loop":
        given[:2] = [np.asarray(0, np.int64), np.asarray(True)]
    elif node.op_type == "Scan":
        count = node.attributes["num_scan_inputs"].as_int()
        axes = node.attributes.get_ints("scan_input_axes", [0] * count)
        scanned = zip(given[-count:], axes, strict=True)
        given[-count:] = [None if a is None else a.take(0, axis) for a, axis in scanned]
    elif node.op_type == "If":
        given = []
    feed = {}
    for value, array in zip(body.inputs, given, strict=False):
        if array is None:
            raise ModelError(f"the input {value.name!r} of a body was not measured")
        feed[value.name or ""] = array
    return feed


def _array(value: ir.Value, known: Mapping[ir.Value, np.ndarray]) -> np.ndarray | None:
    tensor = constant(value)
    return known.get(value) if tensor is None else tensor.numpy()
