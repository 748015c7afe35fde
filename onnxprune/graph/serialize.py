"""From the graph in memory to the protobuf message, with what `load` had set aside put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx
import onnx_ir as ir

from onnxprune.errors import ModelError, OnnxPruneError
from onnxprune.graph.load import MAP_TYPES

__all__ = ["LARGEST_PROTO", "attributes_in_memory", "in_memory", "initializers", "serialize"]

LARGEST_PROTO = 2_000_000_000  # bytes of weights; leaves room for the rest below protobuf's 2 GiB


def initializers(model: ir.Model) -> list[ir.Value]:
    """The initializers of the main graph and of every subgraph that have contents."""
    return [
        value
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    ]


def serialize(model: ir.Model) -> bytes:
    """The model as a protobuf message; lazy tensors are evaluated, external ones stay references.

    Raises:
        ModelError: The model has what ONNX cannot express, or is larger than protobuf allows.
    """
    try:
        with attributes_in_memory(model):
            proto = ir.serde.serialize_model(model)
        _restore_map_types(proto, model.meta.get(MAP_TYPES, {}))
        return bytes(proto.SerializeToString(deterministic=True))
    except (ir.serde.SerdeError, ValueError, TypeError) as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if isinstance(root, OSError | OnnxPruneError):
            raise root from error
        reason = str(root).strip().partition("\n")[0]
        raise ModelError(f"the model cannot be written as ONNX: {reason}") from error


def _restore_map_types(proto: onnx.ModelProto, aside: dict[str, onnx.TypeProto]) -> None:
    for info in [*proto.graph.input, *proto.graph.output]:
        if info.name in aside:
            info.type.CopyFrom(aside[info.name])


@contextmanager
def attributes_in_memory(model: ir.Model) -> Iterator[None]:
    """Within the context no attribute refers to an external file; few readers expect that."""
    before: list[tuple[ir.Node, ir.Attr]] = []
    graphs = [*model.graphs(), *(function.graph for function in model.functions.values())]
    try:
        for node in (node for graph in graphs for node in graph):
            for name, attribute in list(node.attributes.items()):
                if isinstance(attribute.value, ir.ExternalTensor):
                    before.append((node, attribute))
                    node.attributes[name] = ir.AttrTensor(name, in_memory(attribute.value))
        yield
    finally:
        for node, attribute in before:
            node.attributes[attribute.name] = attribute


def in_memory(tensor: ir.ExternalTensor) -> ir.LazyTensor:
    """The external tensor as one whose bytes are read when the model is serialised."""
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy(), dtype=tensor.dtype),
        dtype=tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
