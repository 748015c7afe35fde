"""Subgraphs (the branches of If, the bodies of Loop and Scan) and the graph around them."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["captured_values", "subgraphs"]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's attributes."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def captured_values(node: ir.Node) -> list[ir.Value]:
    """What a node's subgraphs use but do not define, each once, in order of first use."""
    found: dict[ir.Value, None] = {}
    for graph in subgraphs(node):
        own = {*graph.inputs, *graph.initializers.values()}
        for inner in graph:
            for value in (*inner.inputs, *captured_values(inner)):
                if value is not None and value not in own:
                    found[value] = None
            own.update(inner.outputs)
        found.update((value, None) for value in graph.outputs if value not in own)
    return list(found)
