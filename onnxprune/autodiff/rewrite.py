"""Nodes of the main graph replaced, in place, by what is written for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.graph.flow import subgraphs

__all__ = ["rewrite"]


def rewrite(
    model: ir.Model,
    prefix: str,
    chosen: Callable[[ir.Node], bool],
    written: Callable[[Ops, ir.Node], Sequence[Tensor]],
) -> bool:
    """Replace some nodes.

    Args:
        model: Its values have types and shapes.
        prefix: Start of the names of new values, which no other name starts with.
        chosen: Which nodes.
        written: Writes what one computes; a tensor for each of its outputs, or more.

    Returns:
        Whether there was any.
    """
    graph = model.graph
    if not any(chosen(node) for node in graph):
        return False
    op = Ops(graph, prefix)
    nodes = list(graph)
    for node in nodes:
        graph.remove(node)
    for node in nodes:
        if not chosen(node):
            graph.append(node)
            continue
        results = written(op, node)
        for old, new in zip(node.outputs, results[: len(node.outputs)], strict=True):
            if not old.name:
                continue
            passed = op.Identity(new).value  # the result may be a name from outside
            passed.name, old.name = old.name, None
            passed.type, passed.shape = old.type or passed.type, old.shape  # for those that read it
            ir.convenience.replace_all_uses_with(old, passed, replace_graph_outputs=True)
        for gone in (node, *(inner for body in subgraphs(node) for inner in body)):
            for index in range(len(gone.inputs)):
                gone.replace_input_with(index, None)
    return True
