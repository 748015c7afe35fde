"""What flows where in a graph: what nodes read, in their bodies too, and from where to where values live."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = [
    "bodies_by_node",
    "captured_values",
    "fed_values",
    "last_uses",
    "outer_values",
    "read_values",
    "subgraphs",
]


def subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    """The bodies of a node: the branches of an If, the body of a Loop or Scan."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def bodies_by_node(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Graph]]:
    """The bodies that nodes of this graph have, with their nodes."""
    for node in graph:
        for body in subgraphs(node):
            yield node, body


def outer_values(body: ir.Graph) -> list[ir.Value]:
    """Values from outside that a body, or one inside it, uses, each once, in order of first use."""
    found: dict[ir.Value, None] = {}
    own = {*body.inputs, *body.initializers.values()}
    for node in body:
        found.update((value, None) for value in read_values(node) if value not in own)
        own.update(node.outputs)
    found.update((value, None) for value in body.outputs if value not in own)
    return list(found)


def captured_values(node: ir.Node) -> list[ir.Value]:
    """What a node's bodies use but do not define, each once, in order of first use."""
    return list(dict.fromkeys(v for body in subgraphs(node) for v in outer_values(body)))


def read_values(node: ir.Node) -> Iterator[ir.Value]:
    """The values that a node reads, itself or in its bodies."""
    yield from (value for value in node.inputs if value is not None)
    yield from captured_values(node)


def last_uses(graph: ir.Graph) -> dict[ir.Value, int]:
    """The position of the last node that reads each value; those of the graph's outputs are never over."""
    last: dict[ir.Value, int] = dict.fromkeys(graph.inputs, -1)
    nodes = list(graph)
    for position, node in enumerate(nodes):
        last.update(dict.fromkeys(node.outputs, -1))
        last.update(dict.fromkeys(read_values(node), position))
    last.update(dict.fromkeys(graph.outputs, len(nodes)))
    return last


def fed_values(graph: ir.Graph) -> set[ir.Value]:
    """The values that depend on what the model is fed."""
    found = set(graph.inputs) - set(graph.initializers.values())
    for node in graph:
        if not found.isdisjoint(read_values(node)):
            found.update(node.outputs)
    return found
