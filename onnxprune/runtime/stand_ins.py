"""Stand-ins for large weights where only shapes matter, made while the model runs and gone at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.graph import weights
from onnxprune.graph.flow import bodies_by_node

__all__ = ["insert_before_use", "stand_ins"]

BIG_MODEL = 32 << 20
"""With more bytes of weights than this, stand-ins take the place of those over `BIG_WEIGHT` bytes."""
BIG_WEIGHT = 64 << 10


def stand_ins(model: ir.Model, fill: float = 0.01) -> None:
    """Exchanges the big weights of a big model for ConstantOfShape nodes of the same shape, in place."""
    graph = model.graph
    held = [w for w in weights(model) if w.kind == "initializer" and w.graph is graph]
    if sum(weight.nbytes for weight in held) <= BIG_MODEL:
        return
    for weight in held:
        if weight.nbytes <= BIG_WEIGHT or not weight.dtype.is_floating_point():
            continue
        value, shape = weight.value, np.array(weight.shape, np.int64)
        filler = ir.tensor(np.full(1, fill, weight.dtype.numpy()), dtype=weight.dtype)
        graph.initializers.pop(weight.name)
        if value in graph.inputs:
            graph.inputs.remove(value)
        value.const_value = None
        sizes = ir.Value(name=f"{weight.name}/sizes", const_value=ir.tensor(shape))
        graph.register_initializer(sizes)
        node = ir.Node(
            "", "ConstantOfShape", [sizes], [ir.AttrTensor("value", filler)], outputs=[value]
        )
        insert_before_use(graph, value, [node])


def insert_before_use(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node]) -> None:
    """Puts the nodes that make a value just before its first use, so that it is not there for longer than needed."""
    users = {user for user, _ in value.uses()}
    inside = {outer for outer, body in bodies_by_node(graph) if users & set(body.all_nodes())}
    first = next((node for node in graph if node in users or node in inside), None)
    if first is None:
        graph.extend(nodes)
    else:
        graph.insert_before(first, nodes)
