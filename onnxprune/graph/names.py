"""Names of values that nothing has yet."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

__all__ = ["unused", "value_names"]


def unused(name: str, taken: Collection[str | None]) -> str:
    """The name, with as many `_` behind it as it takes that it is not among those taken."""
    while name in taken:
        name += "_"
    return name


def value_names(graph: ir.Graph) -> set[str | None]:
    """The names of all values of a graph and of the bodies in it."""
    found = {value.name for node in graph.all_nodes() for value in node.outputs}
    for each in (graph, *graph.subgraphs()):
        found.update(value.name for value in (*each.inputs, *each.initializers.values()))
    return found
