"""Weights turned into inputs of the graph, so that one session runs the model with any of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import Loss, Ops, Tensor
from onnxprune.autodiff.prepare import prepare
from onnxprune.graph import Weight, clone, weights

__all__ = ["Arrays", "evaluation", "lift", "unused_prefix"]

Arrays = dict[str, np.ndarray]

_WIDER = {ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def lift(model: ir.Model, trained: Sequence[Weight]) -> tuple[ir.Model, Arrays]:
    """A copy whose trained weights are inputs, and their values.

    Half-precision weights become float32 inputs and are rounded inside the graph: small updates add up
    in the wide copy (Micikevicius et al. 2018, arXiv:1710.03740).

    Args:
        model: A model without local functions; left as it is.
        trained: Weights of its main graph.
    """
    lifted = clone(model)
    graph = lifted.graph
    names = {weight.name for weight in trained}
    arrays: Arrays = {}
    for weight in weights(lifted):
        if weight.graph is not graph or weight.name not in names:
            continue
        wide = ir.DataType.FLOAT if weight.dtype in _WIDER else weight.dtype
        arrays[weight.name] = np.array(weight.array(), wide.numpy(), order="C")
        value = ir.Value(type=ir.TensorType(wide), shape=ir.Shape(weight.shape))
        old, producer = weight.value, weight.value.producer()
        reader = value
        if wide != weight.dtype:
            cast = ir.node("Cast", [value], {"to": weight.dtype.value})
            reader = cast.outputs[0]
            reader.name = f"{weight.name}/rounded"
            graph.insert_before(graph[0], cast)
        ir.convenience.replace_all_uses_with(old, reader, replace_graph_outputs=True)
        if producer is not None:
            old.name = None
            graph.remove(producer, safe=True)
        else:
            del graph.initializers[weight.name]
            if old.is_graph_input():
                graph.inputs.remove(old)
        value.name = weight.name
        graph.inputs.append(value)
    return lifted, arrays


def evaluation(model: ir.Model, loss: Loss, feeds: Arrays) -> ir.Model:
    """The forward model with the loss, a scalar, as its last output.

    Args:
        model: What `lift` gave; left as it is.
        loss: The loss.
        feeds: Inputs that the model runs on, weights included.
    """
    prepared = prepare(model, feeds)
    graph = prepared.graph
    values = [*graph.inputs, *graph.initializers.values()]
    values += [value for node in graph for value in node.outputs]
    op = Ops(graph, unused_prefix(graph, "evaluation/"))
    total, _ = loss.build(op, {value.name or "": Tensor(value, op) for value in values})
    result = op.Identity(total)
    graph.outputs.append(result.value)
    return prepared


def unused_prefix(graph: ir.Graph, prefix: str) -> str:
    """`prefix`, changed until no name of the graph starts with it."""
    names = [value.name or "" for value in (*graph.inputs, *graph.initializers.values())]
    names += [value.name or "" for node in graph for value in node.outputs]
    while any(name.startswith(prefix) for name in names):
        prefix = f"{prefix[:-1]}'/"
    return prefix
