"""The constant that is added to every output of a contraction: read, written, and made where there is none.

1. A convolution or Gemm has an input for it; absent, or shared with another node, it gets one of its own.
2. A matrix product has none: it is the constant of the Add that follows, or of one that is put there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.contraction import Contraction
from onnxprune.calibrate.views import View, store, view_of
from onnxprune.graph import constant
from onnxprune.graph.names import unused, value_names

__all__ = ["Bias", "bias_of"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Bias:
    """Where a constant is added to what a node gives.

    Attributes:
        node: The node.
        index: Which of its inputs adds it; None where an Add behind it does.
        view: The constant, if there is one.
        width: The number of outputs.
        dtype: Its element type.
    """

    node: ir.Node
    index: int | None
    view: View | None
    width: int
    dtype: ir.DataType

    def read(self) -> Array:
        """What is added now: float64, (width,)."""
        if self.view is None:
            return np.zeros(self.width)
        return np.broadcast_to(np.asarray(self.view.read(), np.float64).reshape(-1), self.width)

    def write(self, values: Array, ir_version: int) -> None:
        """Adds these from now on, (width,); `ir_version` is the model's."""
        if (
            self.view is not None
            and not self.view.shared
            and math.prod(self.view.shape) == self.width
        ):
            store(self.view, np.reshape(values, self.view.shape))
            return
        name = self.node.outputs[0].name
        made = _new_constant(self.node, f"{name}/bias", values, self.dtype, ir_version)
        if self.index is None:
            _add_behind(self.node, made)
            return
        self.node.resize_inputs(max(len(self.node.inputs), self.index + 1))
        self.node.replace_input_with(self.index, made)


def bias_of(each: Contraction, node: ir.Node, width: int, make: bool = True) -> Bias | None:
    """The bias of a contraction.

    Args:
        each: The contraction.
        node: Its node, or that node's twin in another model.
        width: How many outputs the node has.
        make: Whether an Add may be put behind a matrix product.

    Returns:
        None where what is added is no constant, or there is no place for one.
    """
    kind = each.view.source.dtype
    weight = constant(each.view.source)
    dtype = kind or (weight.dtype if weight is not None else ir.DataType.FLOAT)
    if each.bias is not None:
        value = node.inputs[each.bias] if each.bias < len(node.inputs) else None
        view = None if value is None else view_of(value)
        if value is not None and (view is None or not _one_each(view, width)):
            return None
        return Bias(node, each.bias, view, width, dtype)
    if each.kind != "matmul":
        return None
    view = _added(node, width)
    if view is None and (not make or node.outputs[0].is_graph_output()):
        return None
    return Bias(node, None, view, width, dtype)


def _one_each(view: View, width: int) -> bool:
    """Whether a constant has one number for every output, along the last axis, or one for all."""
    count = math.prod(view.shape)
    return count == 1 or (count == width and view.shape[-1] == width)


def _added(node: ir.Node, width: int) -> View | None:
    """The constant of the Add that alone reads the node's output, one number for each output, its own."""
    uses = node.outputs[0].uses()
    if len(uses) != 1 or node.outputs[0].is_graph_output():
        return None
    ((add, index),) = uses
    other = add.inputs[1 - index] if add.op_type == "Add" else None
    view = None if other is None else view_of(other)
    fits = view is not None and not view.shared and view.shape[-1:] == (width,)
    return view if fits and view is not None and math.prod(view.shape) == width else None


def _new_constant(
    node: ir.Node, name: str, values: Array, dtype: ir.DataType, ir_version: int
) -> ir.Value:
    """An initializer; before IR version 4, where those are inputs of the model, a Constant node."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = unused(name, value_names(graph))
    tensor = ir.Tensor(np.asarray(values, dtype.numpy()), dtype=dtype, name=name)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(np.shape(values)))
    if ir_version < 4:
        graph.insert_before(
            node, ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value])
        )
    else:
        value.const_value = tensor
        graph.register_initializer(value)
    return value


def _add_behind(node: ir.Node, bias: ir.Value) -> None:
    output = node.outputs[0]
    users = [(user, index) for user, index in output.uses()]
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    name = unused(f"{output.name}/biased", value_names(graph))
    total = ir.Value(name=name, type=output.type, shape=output.shape)
    graph.insert_after(node, ir.Node("", "Add", [output, bias], outputs=[total]))
    for user, index in users:
        user.replace_input_with(index, total)
