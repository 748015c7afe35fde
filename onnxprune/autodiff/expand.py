"""Ops that ONNX itself defines by simpler ones, replaced by their definition.

The standard gives many ops a function body (Attention, RotaryEmbedding, GroupNormalization, the
losses, ...). Where such an op has no rule of its own, its body is as good a description as any:
every op in it that has a rule can be differentiated.
"""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from onnxprune.autodiff import registry

__all__ = ["expand"]


def expand(model: ir.Model) -> bool:
    """Replace, in place, every node of the main graph that has no rule but a definition.

    Args:
        model: Its values have types and shapes.

    Returns:
        Whether there was any.
    """
    version = model.opset_imports.get("", 0)
    functions: list[ir.Function] = []
    for node in model.graph:
        if node.domain or registry.find(node) is not None:
            continue
        function = _definition(node, version)
        if function is not None:
            name = f"expanded_{len(functions)}"
            functions.append(
                ir.Function(
                    "onnxprune", name, graph=function.graph, attributes=function.attributes.values()
                )
            )
            functions[-1].opset_imports[""] = version
            node.domain, node.op_type, node.version = "onnxprune", name, None
            _keep(node, function)
            node.resize_outputs(len(function.outputs))
            for index, output in enumerate(node.outputs):
                output.name = output.name or f"{name}.unused_{index}"
    for function in functions:
        model.functions[function.identifier()] = function
    if functions:
        model.opset_imports["onnxprune"] = 1
        InlinePass()(model)
        model.opset_imports.pop("onnxprune", None)
    return bool(functions)


def _keep(node: ir.Node, function: ir.Function) -> None:
    """Only the attributes that the body refers to; the others are written into it already."""
    for name in list(node.attributes):
        if name not in function.attributes:
            node.attributes.pop(name)


def _definition(node: ir.Node, version: int) -> ir.Function | None:
    if any(
        value is not None and not isinstance(value.type, ir.TensorType) for value in node.inputs
    ):
        return None  # onnx's own function builders ask for the types of all inputs
    if not onnx.defs.has(node.op_type, ""):
        return None  # onnxruntime has ops of its own in ONNX's domain
    schema: Any = onnx.defs.get_schema(node.op_type, version, "")
    if schema.has_function:
        proto = schema.function_body
    elif schema.has_context_dependent_function:
        proto = onnx.FunctionProto()
        proto.ParseFromString(_context_dependent(schema, node, version))
    else:
        return None
    made = {name for inner in proto.node for name in inner.output}
    for name in proto.output:
        if name not in made:  # left out of the body because the node does not ask for it
            proto.node.append(onnx.helper.make_node("Constant", [], [name], value_float=0.0))
    return ir.serde.deserialize_function(proto)


def _context_dependent(schema: Any, node: ir.Node, version: int) -> bytes:
    types = []
    for value in node.inputs:
        proto = onnx.TypeProto()
        if value is not None:
            assert value.dtype is not None
            dims = None if value.shape is None else value.shape.dims
            shape = None if dims is None else [d if isinstance(d, int) else None for d in dims]
            proto = onnx.helper.make_tensor_type_proto(int(value.dtype), shape)
        types.append(proto.SerializeToString())
    since = max(v for v in schema.context_dependent_function_opset_versions if v <= version)
    body: bytes = schema.get_context_dependent_function_with_opset_version(
        since, ir.to_proto(node).SerializeToString(), types
    )
    return body
