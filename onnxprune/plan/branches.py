"""Layers that can be left out whole: the branches that a sum goes round.

    y = x + f(x)    becomes    y = x,    or    y = x + E f(x)

An operand of an Add (or of a Sum of two) is such a branch if it and the other operand depend on what the model is fed
and have the shape of the sum, and if nodes hang on it that nothing else needs, one of them a product with weights. They
go with it: a residual block (where its shortcut has weights of its own, the longer of the two), an attention, an MLP.

Sources: Huang et al., "Deep networks with stochastic depth", ECCV 2016 (residual networks stand it); Wang, Wu,
"Practical network acceleration with tiny sets", CVPR 2023 (leaving out blocks where there are few samples).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.graph.cost import Shapes, is_contraction
from onnxprune.graph.edit import Edit
from onnxprune.plan.weights import is_excluded
from onnxprune.runtime.pieces import fed_values, read_values

__all__ = ["Branch", "branches", "left_out", "silenced"]

SUMS = frozenset(("Add", "Sum"))
CONVOLUTIONS = frozenset(("Conv", "ConvTranspose", "FusedConv", "ConvInteger", "QLinearConv"))


@dataclass(frozen=True)
class Branch:
    """An operand of a sum, by names, which a model keeps when others of its branches go.

    Attributes:
        sum: The name of what the sum gives.
        operand: The name of the operand.
        axis: The operand's axis of channels.
        nodes: How many nodes go with it.
    """

    sum: str
    operand: str
    axis: int
    nodes: int

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others of the same model."""
        return self.sum, self.operand


def branches(model: ir.Model, shapes: Shapes, exclude: Sequence[str] = ()) -> list[Branch]:
    """The branches of the main graph, in its order.

    Args:
        model: A model without local functions.
        shapes: Shapes of its values in a run.
        exclude: Patterns of names of nodes and tensors that are not to be touched.
    """
    fed, found = fed_values(model.graph), []
    for node in model.graph:
        if node.op_type not in SUMS or node.domain not in ("", "ai.onnx") or len(node.inputs) != 2:
            continue
        same = [
            value in fed and shapes.get(value) == shapes[node.outputs[0]] for value in _pair(node)
        ]
        if not all(same) or node.inputs[0] is node.inputs[1]:
            continue
        value, gone = max(
            ((value, _only_for(value, node)) for value in _pair(node)),
            key=lambda pair: len(pair[1]),
        )
        names = {one.name or "" for one in gone}
        names |= {each.name or "" for one in gone for each in read_values(one, model.graph)}
        weigh = [one for one in model.graph if one in gone and _weighs(one, fed)]
        if weigh and not is_excluded(names, exclude):
            axis = 1 if weigh[-1].op_type in CONVOLUTIONS else len(shapes[value]) - 1
            found.append(Branch(node.outputs[0].name or "", value.name or "", axis, len(gone)))
    return found


def left_out(
    model: ir.Model,
    gone: Sequence[Branch],
    means: Mapping[tuple[str, str], np.ndarray] | None = None,
) -> ir.Model:
    """The model without some branches, and without all that only they needed.

    Args:
        model: The model; it is not changed.
        gone: Branches of it.
        means: By their keys what takes their place, such as broadcasts; without, the sums go too.
    """
    edit = Edit(model)
    for branch in gone:
        add, index = _place(model, branch)
        if means is not None:
            mean = ir.Tensor(means[branch.key])
            edit.replace_input(
                add, index, edit.constant(_home(add), f"{branch.operand}/mean", mean)
            )
            continue
        other = edit.node[add].inputs[1 - index]
        assert other is not None
        if edit.node[add].outputs[0].is_graph_output():
            other = _as_output(other, edit.node[add], edit)
        edit.replace_users(add.outputs[0], other, list(edit.node[add].outputs[0].uses()))
    edit.remove_unused()
    return edit.model


def silenced(model: ir.Model, gone: Sequence[Branch]) -> ir.Model:
    """The model in which some branches are computed, and give zeros."""
    edit = Edit(model)
    for branch in gone:
        add, index = _place(model, branch)
        twin = edit.node[add]
        operand = twin.inputs[index]
        nothing = ir.Node("", "Sub", [operand, operand], num_outputs=1)
        nothing.outputs[0].name = edit.unused(f"{branch.operand}/silenced")
        _home(twin).insert_before(twin, nothing)
        twin.replace_input_with(index, nothing.outputs[0])
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


def _pair(add: ir.Node) -> Iterator[ir.Value]:
    for value in add.inputs:
        assert value is not None
        yield value


def _only_for(value: ir.Value, add: ir.Node) -> set[ir.Node]:
    """The nodes that nothing but an operand of a sum needs."""
    gone: set[ir.Node] = set()
    queue = [value]
    while queue:
        node = queue.pop().producer()
        if node is None or node in gone or node.graph is not add.graph:
            continue
        outputs = node.outputs
        users = {user for output in outputs for user, _ in output.uses()}
        if value in outputs:
            users.discard(add)
        if users <= gone and not any(output.is_graph_output() for output in outputs):
            gone.add(node)
            queue += read_values(node, _home(add))
    return gone


def _weighs(node: ir.Node, fed: set[ir.Value]) -> bool:
    """Whether a node multiplies by weights."""
    given = [value for value in node.inputs if value is not None]
    return is_contraction(node.op_type) and any(value not in fed for value in given)


def _place(model: ir.Model, branch: Branch) -> tuple[ir.Node, int]:
    """The sum that a branch is an operand of, and which."""
    (add,) = (node for node in model.graph if node.outputs and node.outputs[0].name == branch.sum)
    names = [None if value is None else value.name for value in add.inputs]
    return add, names.index(branch.operand)


def _home(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph
