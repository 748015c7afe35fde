"""A layer on its own: a model of a single node, of any width, to be timed.

It has the node's operator and attributes, weights and inputs of the shapes asked for, and random numbers in them: how
long a kernel takes does not depend on the values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.graph import Weight

__all__ = ["Layer", "Operand", "layer_of"]

BLOCK = 1 << 16
"""Random numbers that are drawn; larger arrays repeat them."""


@dataclass(frozen=True)
class Operand:
    """An input of a layer.

    Attributes:
        dtype: Name of its ONNX type.
        shape: Its shape.
        stored: Whether it is a weight, which onnxruntime packs before it runs.
        value: Its elements where they matter (sizes, zero points), row by row.
    """

    dtype: str
    shape: tuple[int, ...]
    stored: bool
    value: tuple[Any, ...] | None = None


@dataclass(frozen=True)
class Layer:
    """One operator at certain widths; equal layers take equal time.

    Attributes:
        domain: Of the operator.
        op: Its type.
        opset: Version of the domain.
        attributes: Name and value of each, in order of names.
        operands: Its inputs, None where one is left out.
        outputs: How many outputs it has.
        ir_version: Of the model it is from.
    """

    domain: str
    op: str
    opset: int
    attributes: tuple[tuple[str, Any], ...]
    operands: tuple[Operand | None, ...]
    outputs: int
    ir_version: int

    def model(self) -> tuple[ir.Model, dict[str, np.ndarray]]:
        """The model of this one node, and what to feed it."""
        rng = np.random.default_rng(0)
        inputs, fed, stored = list[ir.Value | None](), dict[str, np.ndarray](), list[ir.Value]()
        for k, operand in enumerate(self.operands):
            if operand is None:
                inputs.append(None)
                continue
            dtype, array = ir.DataType[operand.dtype], _array(operand, rng)
            value = ir.Value(name=f"x{k}", type=ir.TensorType(dtype), shape=ir.Shape(operand.shape))
            inputs.append(value)
            if operand.stored:
                value.const_value = ir.Tensor(array, dtype=dtype, name=value.name)
                stored.append(value)
            else:
                fed[f"x{k}"] = array
        node = ir.node(
            self.op, inputs, dict(self.attributes), domain=self.domain, num_outputs=self.outputs
        )
        for k, output in enumerate(node.outputs):
            output.name = f"y{k}"
        graph = ir.Graph(
            [value for value in inputs if value is not None and value.name in fed],
            node.outputs[:1],
            nodes=[node],
            initializers=stored,
            opset_imports={"": 17, self.domain: self.opset},
            name="layer",
        )
        return ir.Model(graph, ir_version=self.ir_version), fed


def layer_of(
    node: ir.Node,
    shapes: Mapping[int, tuple[int, ...]],
    stored: Mapping[int, Weight],
    sizes: Mapping[str, int],
    ir_version: int,
) -> Layer:
    """The layer that a node is.

    Args:
        node: The node.
        shapes: Shapes of its inputs, by index.
        stored: Those of them that are weights.
        sizes: Attributes that are sizes of axes, as they are now.
        ir_version: Of the model.
    """
    operands = list[Operand | None]()
    for k, value in enumerate(node.inputs):
        if value is None:
            operands.append(None)
            continue
        weight = stored.get(k)
        dtype = weight.dtype if weight is not None else value.dtype or ir.DataType.FLOAT
        held = None
        if weight is not None and (math.prod(weight.shape) <= 1 or dtype == ir.DataType.INT64):
            held = tuple(weight.array().reshape(-1).tolist())
        operands.append(Operand(dtype.name, shapes[k], weight is not None, held))
    attributes = {
        name: _plain(attribute.value) for name, attribute in node.attributes.items() if name
    }
    return Layer(
        node.domain,
        node.op_type,
        _opset(node),
        tuple(sorted({**attributes, **sizes}.items())),
        tuple(operands),
        len(node.outputs),
        ir_version,
    )


def _opset(node: ir.Node) -> int:
    graph = node.graph
    imports = graph.opset_imports if isinstance(graph, ir.Graph) else {}
    return node.version or imports.get(node.domain, 1)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, (list, tuple)) else value


def _array(operand: Operand, rng: np.random.Generator) -> np.ndarray:
    dtype = ir.DataType[operand.dtype].numpy()
    if operand.value is not None:
        return np.array(operand.value, dtype).reshape(operand.shape)
    count = math.prod(operand.shape)
    drawn = rng.random(min(max(count, 1), BLOCK), np.float32) + 0.1
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        drawn = np.rint(drawn)
    return np.resize(drawn.astype(dtype), operand.shape)
