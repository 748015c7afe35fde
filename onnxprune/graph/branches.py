"""Layers that can be left out whole: the branches that a sum goes round.

    y = x + f(x)    becomes    y = x,    or    y = x + E f(x)

An operand of an Add (or of a Sum of two) is such a branch if it and the other operand depend on what the model is fed
and have the shape of the sum, and if nodes hang on it that nothing else needs, one of them a product with weights. They
go with it: a residual block (where its shortcut has weights of its own, the longer of the two), an attention, an MLP.
Branches with an If, Loop or Scan in them stay.

Sources: Huang et al., "Deep networks with stochastic depth", ECCV 2016 (residual networks stand it); Wang, Wu,
"Practical network acceleration with tiny sets", CVPR 2023 (leaving out blocks where there are few samples).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.graph.cost import LEARNED, Shapes, is_contraction, node_macs
from onnxprune.graph.edit import Edit
from onnxprune.graph.flow import fed_values, subgraphs
from onnxprune.graph.weights import constant

__all__ = ["Branch", "branches", "left_out", "silenced"]

SUMS = frozenset(("Add", "Sum"))
BROADCASTS = 8
"""Opset since which a Sum broadcasts."""


@dataclass(frozen=True)
class Branch:
    """An operand of a sum, told by what a model keeps when others of its branches go.

    Attributes:
        sum: The name of what the sum gives.
        index: Which operand it is.
        nodes: How many nodes go with it.
        params: Elements of the weights that only they read.
        macs: Multiply-accumulates of theirs.
    """

    sum: str
    index: int
    nodes: int = field(compare=False)
    params: int = field(compare=False)
    macs: int = field(compare=False)


def branches(
    model: ir.Model, shapes: Shapes, stays: Callable[[Iterable[str]], bool] = lambda _: False
) -> list[Branch]:
    """The branches of the main graph, in its order.

    Args:
        model: A model without local functions.
        shapes: Shapes of its values in a run.
        stays: Whether one of some names of nodes and tensors is not to be touched.
    """
    fed, found = fed_values(model.graph), []
    for node in model.graph:
        if not _adds(node, model) or node.inputs[0] is node.inputs[1]:
            continue
        shape = shapes.get(node.outputs[0])
        if not shape or not all(
            value in fed and shapes.get(value) == shape for value in node.inputs
        ):
            continue
        every = [_only_for(node, index) for index in range(2)]
        index = int(len(every[1]) > len(every[0]))
        gone = every[index]
        if (
            any(_weighs(one, fed) for one in gone)
            and not any(True for one in gone for _ in subgraphs(one))
            and not stays(_names(gone, fed))
        ):
            work = sum(node_macs(one, shapes) or 0 for one in gone)
            name = node.outputs[0].name or ""
            found.append(Branch(name, index, len(gone), _elements(gone), work))
    return found


def left_out(
    model: ir.Model, gone: Sequence[Branch], means: Mapping[Branch, np.ndarray] | None = None
) -> ir.Model:
    """The model without some branches, and without all that only they needed.

    Args:
        model: The model; it is not changed.
        gone: Branches of it, inner ones first.
        means: What takes the place of each, such as broadcasts; without, the sums go too.
    """
    edit = Edit(model)
    for branch in gone:
        add = _sum_of(model, branch)
        if means is not None:
            name = f"{branch.sum}/mean"
            mean = edit.constant(_home(add), name, ir.Tensor(means[branch], name=name))
            edit.replace_input(add, branch.index, mean)
            continue
        twin = edit.node[add]
        other = twin.inputs[1 - branch.index]
        assert other is not None
        if twin.outputs[0].is_graph_output():
            other = _as_output(other, twin, edit)
        edit.replace_users(add.outputs[0], other, list(twin.outputs[0].uses()))
    edit.remove_unused()
    return edit.model


def silenced(model: ir.Model, gone: Sequence[Branch]) -> ir.Model:
    """The model in which some branches are computed, and give zeros."""
    edit = Edit(model)
    for branch in gone:
        twin = edit.node[_sum_of(model, branch)]
        operand = twin.inputs[branch.index]
        nothing = ir.Node("", "Sub", [operand, operand], num_outputs=1)
        nothing.outputs[0].name = edit.unused(f"{branch.sum}/silenced")
        _home(twin).insert_before(twin, nothing)
        twin.replace_input_with(branch.index, nothing.outputs[0])
    return edit.model


def _as_output(value: ir.Value, node: ir.Node, edit: Edit) -> ir.Value:
    """A value as what a node has given as an output of the model, under that name."""
    home, old = _home(node), node.outputs[0]
    same = ir.Node("", "Identity", [value], num_outputs=1)
    new = same.outputs[0]
    new.name, new.type, new.shape = old.name, old.type, old.shape
    old.name = edit.unused(f"{old.name}/before")
    home.insert_before(node, same)
    home.outputs[list(home.outputs).index(old)] = new
    return new


def _adds(node: ir.Node, model: ir.Model) -> bool:
    """Whether a node adds two values, and broadcasts."""
    if node.domain or node.op_type not in SUMS or len(node.inputs) != 2:
        return False
    return node.op_type == "Add" or model.opset_imports.get("", 1) >= BROADCASTS


def _only_for(add: ir.Node, index: int) -> list[ir.Node]:
    """The nodes that nothing but one operand of a sum needs."""
    operand = add.inputs[index]
    gone: dict[ir.Node, None] = {}
    queue = [operand]
    while queue:
        value = queue.pop()
        node = None if value is None else value.producer()
        if node is None or node in gone or node.graph is not add.graph:
            continue
        users = {
            user
            for output in node.outputs
            for user, _ in output.uses()
            if not (output is operand and user is add)
        }
        if users <= gone.keys() and not any(output.is_graph_output() for output in node.outputs):
            gone[node] = None
            queue += node.inputs
    return list(gone)


def _weighs(node: ir.Node, fed: set[ir.Value]) -> bool:
    """Whether a node multiplies by weights."""
    given = [value for value in node.inputs if value is not None]
    return is_contraction(node.op_type) and any(value not in fed for value in given)


def _elements(gone: Collection[ir.Node]) -> int:
    """Elements of the weights that nobody reads but some nodes."""
    read = {value for node in gone for value in node.inputs if value is not None}
    tensors = [constant(value) for value in read if {user for user, _ in value.uses()} <= set(gone)]
    return sum(math.prod(t.shape.numpy()) for t in tensors if t and t.dtype in LEARNED)


def _names(gone: Iterable[ir.Node], fed: set[ir.Value]) -> set[str]:
    """Of nodes, what they give, and the weights that they read."""
    found = set[str]()
    for node in gone:
        given = [value for value in node.inputs if value is not None and value not in fed]
        found |= {node.name or "", *(value.name or "" for value in (*node.outputs, *given))}
    return found - {""}


def _sum_of(model: ir.Model, branch: Branch) -> ir.Node:
    """The node that adds a branch."""
    (add,) = (node for node in model.graph if node.outputs and node.outputs[0].name == branch.sum)
    return add


def _home(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
