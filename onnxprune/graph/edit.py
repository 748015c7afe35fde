"""Editing a copy of a model: which part is the copy of what, new constants, and what nobody reads any more."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

from onnxprune.graph.flow import read_values, subgraphs
from onnxprune.graph.inline import clone
from onnxprune.graph.names import unused
from onnxprune.graph.weights import weights

__all__ = ["Edit"]


class Edit:
    """A copy of a model and the changes made to it.

    Attributes:
        model: The copy.
        node: Its nodes, by those of the original.
        value: Its values, likewise.
        weight: Its constant tensors, likewise.
    """

    def __init__(self, original: ir.Model) -> None:
        self.model = clone(original)
        pairs = list(zip(original.graph.all_nodes(), self.model.graph.all_nodes(), strict=True))
        self.node = dict(pairs)
        self.value: dict[ir.Value, ir.Value] = {}
        for old, new in pairs:
            self.value.update(zip(old.outputs, new.outputs, strict=True))
        self._graph = dict(zip(original.graphs(), self.model.graphs(), strict=True))
        for old_graph, new_graph in self._graph.items():
            self.value.update(zip(old_graph.inputs, new_graph.inputs, strict=True))
        self.weight = dict(zip(weights(original), weights(self.model), strict=True))
        for before, after in self.weight.items():
            self.value[before.value] = after.value
        self._taken = {value.name for value in self.value.values()}
        self._orphans: dict[ir.Value, None] = {}

    def unused(self, name: str) -> str:
        """The name, or one like it that no value of the copy has; taken from now on."""
        name = unused(name, self._taken)
        self._taken.add(name)
        return name

    def constant(self, graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        """A new constant in the copy of a graph, under a name that nothing has yet.

        It is an initializer; before IR version 4, where those are inputs of the model, a Constant node.
        """
        name = tensor.name = self.unused(name)
        home, shape = self._graph[graph], ir.Shape(tensor.shape.numpy())
        value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=shape)
        if self.model.ir_version < 4:
            node = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[value])
            home.insert_before(home[0], node)
        else:
            value.const_value = tensor
            home.register_initializer(value)
        return value

    def replace_input(self, node: ir.Node, index: int, value: ir.Value) -> None:
        """The copy of a node reads another value."""
        twin = self.node[node]
        before = twin.inputs[index]
        twin.replace_input_with(index, value)
        if before is not None:
            self._orphans[before] = None

    def replace_users(
        self, output: ir.Value, value: ir.Value, users: Iterable[tuple[ir.Node, int]]
    ) -> None:
        """Some users (nodes of the copy, with the index of the input) of the copy of a value read another one."""
        for user, index in users:
            user.replace_input_with(index, value)
        self._orphans[self.value[output]] = None

    def remove_unused(self) -> None:
        """Drops what nobody reads any more of what was replaced, and of what that was made from."""
        queue = list(self._orphans)
        while queue:
            value = queue.pop()
            if value.uses() or value.is_graph_output():
                continue
            node, home = value.producer(), value.graph
            if node is not None and node.graph is not None:
                if not any(output.uses() or output.is_graph_output() for output in node.outputs):
                    queue += list(read_values(node))
                    _forget(node)
            elif value.is_initializer() and isinstance(home, ir.Graph):
                home.initializers.pop(value.name or "")
                if value.is_graph_input():
                    home.inputs.remove(value)


def _forget(node: ir.Node) -> None:
    """Takes a node out of its graph; it and its bodies are no users of anything any more."""
    for body in subgraphs(node):
        for inner in body.all_nodes():
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)
    assert node.graph is not None
    node.graph.remove(node, safe=True)
