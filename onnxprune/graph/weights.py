"""The constant tensors of a model, wherever an exporter has put them.

PyTorch writes initializers, PaddlePaddle and TensorFlow write Constant nodes, old files list
initializers among the graph inputs, size-reduced test files make weights with ConstantOfShape, and
silero-vad keeps them inside the branches of an If. A `Weight` hides the difference: read it with
`.array()`, exchange it with `replace`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune.graph import external
from onnxprune.graph.names import unused, value_names

__all__ = ["Weight", "constant", "replace", "weights"]


@dataclass(frozen=True)
class Weight:
    """One constant tensor of a model.

    Attributes:
        name: Name of its value in the file.
        value: The value that its users read; stays the same object when the weight is replaced.
        kind: An initializer, the output of a Constant node, or of a ConstantOfShape whose shape is
            itself constant.
        graph: The graph that holds it: the main one, a subgraph, or the body of a function.
    """

    name: str
    value: ir.Value
    kind: Literal["initializer", "constant", "constant_of_shape"]
    graph: ir.Graph

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor as it is now."""
        if self._filled is not None:
            return self._filled[0]
        return tuple(self._tensor.shape.numpy())

    @property
    def dtype(self) -> ir.DataType:
        """Element type of the tensor."""
        return self._tensor.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all its elements (of a ConstantOfShape: as if they were stored)."""
        if self.dtype == ir.DataType.STRING:
            return self._tensor.nbytes
        return math.ceil(math.prod(self.shape) * self.dtype.bitwidth / 8)

    def array(self) -> np.ndarray:
        """Reads the tensor. The array may be read-only or shared: copy before changing it."""
        array = external.read(self._tensor)
        if self._filled is not None:
            return np.full(self._filled[0], array.reshape(-1)[0])
        return array

    @property
    def _node(self) -> ir.Node | None:
        return self.value.producer()

    @property
    def _tensor(self) -> ir.TensorProtocol:
        """The stored tensor; of a ConstantOfShape the one-element fill value."""
        tensor = self.value.const_value if self._node is None else _stored(self._node)
        if tensor is None:
            raise ValueError(f"{self.name!r} is no constant any more")
        return tensor

    @property
    def _filled(self) -> tuple[tuple[int, ...]] | None:
        """(shape,) while the weight is still made by a ConstantOfShape."""
        if self._node is None or self._node.op_type != "ConstantOfShape":
            return None
        sizes = self._node.inputs[0]
        stored = constant(sizes) if sizes is not None else None
        if stored is None:
            raise ValueError(f"the shape of {self.name!r} is no constant any more")
        return (tuple(int(size) for size in external.read(stored)),)


def weights(model: ir.Model) -> list[Weight]:
    """Every constant tensor of the model, of any element type.

    Order: the main graph, its subgraphs as met, the functions; in each the initializers, then the
    nodes.
    """
    bodies = [*model.graphs(), *(function.graph for function in model.functions.values())]
    for function in model.functions.values():
        bodies.extend(function.subgraphs())
    seen: dict[ir.Graph, None] = dict.fromkeys(bodies)
    return [weight for graph in seen for weight in _of_graph(graph)]


def _of_graph(graph: ir.Graph) -> Iterator[Weight]:
    for name, value in graph.initializers.items():
        if value.const_value is not None:
            yield Weight(name, value, "initializer", graph)
    for node in graph:
        if node.domain or not node.outputs:
            continue
        value = node.outputs[0]
        if node.op_type == "Constant" and _stored(node) is not None:
            yield Weight(value.name or "", value, "constant", graph)
        elif node.op_type == "ConstantOfShape" and _stored(node) is not None:
            sizes = node.inputs[0]
            if sizes is not None and constant(sizes) is not None:
                yield Weight(value.name or "", value, "constant_of_shape", graph)


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or a Constant node's output; None for any other value."""
    node = value.producer()
    if node is None:
        return value.const_value if value.is_initializer() else None
    if node.op_type == "Constant" and not node.domain:
        return _stored(node)
    return None


def _stored(node: ir.Node) -> ir.TensorProtocol | None:
    """The tensor of a Constant or ConstantOfShape; None where it is an argument of a function."""
    if node.op_type == "ConstantOfShape" and "value" not in node.attributes:
        return ir.tensor(np.zeros(1, np.float32))
    for attribute in node.attributes.values():
        if attribute.is_ref():
            return None
        match attribute.name:
            case "value":
                return attribute.as_tensor()
            case "value_float" | "value_floats":
                return ir.tensor(np.asarray(attribute.value, np.float32))
            case "value_int" | "value_ints":
                return ir.tensor(np.asarray(attribute.value, np.int64))
            case "value_string" | "value_strings":
                texts = [attribute.value] if attribute.name == "value_string" else attribute.value
                shape = ir.Shape([] if attribute.name == "value_string" else [len(texts)])
                return ir.StringTensor([str(text).encode() for text in texts], shape=shape)
    return None


def replace(weight: Weight, new: np.ndarray | ir.TensorProtocol) -> None:
    """Gives the weight new contents: its users see the new tensor, its value the new shape.

    A ConstantOfShape stays one when the new contents are one repeated number, and becomes a
    Constant node otherwise.

    Args:
        weight: What to replace; `weight.value` stays the same object.
        new: An array (floats are converted to the weight's type) or a tensor, which may be an
            `ir.LazyTensor` that is evaluated only when the model is saved.

    Raises:
        TypeError: The element type is not the weight's.
    """
    tensor = _as_tensor(new, weight)
    value, node = weight.value, weight._node
    if node is None:
        tensor.name = weight.name
        value.const_value = tensor
    elif node.op_type == "ConstantOfShape":
        _refill(weight, node, tensor)
    else:
        _set_value(node, tensor)
    value.dtype = tensor.dtype
    value.shape = ir.Shape(tensor.shape.numpy())


def _as_tensor(new: np.ndarray | ir.TensorProtocol, weight: Weight) -> ir.TensorProtocol:
    if isinstance(new, np.ndarray):
        target = weight.dtype
        if target.is_floating_point() and new.dtype != target.numpy():
            new = new.astype(target.numpy())
        if target == ir.DataType.STRING:
            flat = [text if isinstance(text, bytes) else str(text).encode() for text in new.flat]
            return ir.StringTensor(flat, shape=ir.Shape(new.shape))
        if new.dtype != target.numpy():
            raise TypeError(f"{weight.name!r} has type {target}, the new array {new.dtype}")
        return ir.Tensor(np.ascontiguousarray(new).reshape(new.shape), dtype=target)
    if new.dtype != weight.dtype:
        raise TypeError(f"{weight.name!r} has type {weight.dtype}, the new tensor {new.dtype}")
    return new


def _set_value(node: ir.Node, tensor: ir.TensorProtocol) -> None:
    node.attributes.clear()
    node.attributes["value"] = ir.AttrTensor("value", tensor)


def _refill(weight: Weight, node: ir.Node, tensor: ir.TensorProtocol) -> None:
    """New contents for a ConstantOfShape: a new shape of its own, or a Constant in its place."""
    array = external.read(tensor)
    if array.size and np.all(array == array.flat[0]):
        shape = np.asarray(array.shape, np.int64)
        sizes = ir.node("Constant", [], {"value": ir.tensor(shape)})
        sizes.outputs[0].name = unused(f"{weight.name}_shape", value_names(weight.graph))
        sizes.outputs[0].dtype = ir.DataType.INT64
        sizes.outputs[0].shape = ir.Shape(shape.shape)
        weight.graph.insert_before(node, sizes)
        node.replace_input_with(0, sizes.outputs[0])
        _set_value(node, ir.Tensor(array.reshape(-1)[:1].copy(), dtype=tensor.dtype))
        return
    node.resize_inputs(0)
    node.op_type = "Constant"
    _set_value(node, tensor)
