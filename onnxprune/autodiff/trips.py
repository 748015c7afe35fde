"""How often a Loop goes round, where nothing that the model is fed decides it.

Its count and its first condition have to be constants. Whether it goes on may be computed, from constants, the number
of the trip and states that begin as constants, as Keras' recurrent layers do: that part of the body is run until it
ends the loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.graph.flow import subgraphs
from onnxprune.runtime.sessions import run, session

__all__ = ["constant_array", "trips"]

_IR_VERSION = 8
_DRAWS = frozenset("Bernoulli Multinomial RandomNormalLike RandomUniformLike".split())  # noqa: SIM905

Array = np.ndarray
Values = Mapping[ir.Value, Array]


def constant_array(value: ir.Value | None) -> Array | None:
    """What a value always is, where that is known."""
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def trips(node: ir.Node, opsets: Mapping[str, int], most: int) -> int:
    """Trips of a Loop; 0 where they are not known, or more than `most`.

    Args:
        node: The Loop; constants of its body are values from outside.
        opsets: Versions of the operators by domain.
        most: Trips that are counted at most.
    """
    count, start = map(constant_array, node.inputs[:2])
    if count is None and node.inputs[0] is not None:
        return 0
    if node.inputs[1] is not None and (start is None or not start.ravel()[0]):
        return 0
    limit = most + 1 if count is None else min(int(count.ravel()[0]), most + 1)
    body = node.attributes["body"].as_graph()
    first = {body.inputs[0]: np.array(0), body.inputs[1]: np.array(True)}
    for formal, value in zip(body.inputs[2:], node.inputs[2:], strict=True):
        array = constant_array(value)
        if array is not None:
            first[formal] = array
    found = _counted(body, first, limit, opsets)
    return found if found <= most else 0


def _counted(body: ir.Graph, first: Values, limit: int, opsets: Mapping[str, int]) -> int:
    """After how many trips the condition ends the loop, `limit` at most; 0 where it depends on anything else."""
    after = dict(zip(body.inputs[1:], body.outputs, strict=False))
    nodes, states = set[ir.Node](), dict[ir.Value, None]()
    queue = [body.outputs[0]]
    while queue:
        value = queue.pop()
        producer = value.producer()
        if value in states or producer in nodes or constant_array(value) is not None:
            continue
        if value in first:
            states[value] = None
            queue += [after[value]] if value in after else []
        elif producer is None or producer.graph is not body or not _is_plain(producer):
            return 0
        else:
            nodes.add(producer)
            queue += [each for each in producer.inputs if each is not None]
    made = session(_condition(body, nodes, first, [*states], after, opsets))
    now, number = {formal.name or "": first[formal] for formal in states}, 0
    while number < limit:
        feed = {**now, body.inputs[0].name or "": np.array(number)}
        going_on, *later = run(made, {n: a for n, a in feed.items() if n in now})
        now.update(zip((f.name or "" for f in states if f in after), later, strict=True))
        number += 1
        if not going_on.ravel()[0]:
            break
    return number


def _is_plain(node: ir.Node) -> bool:
    return bool(node.inputs) and node.op_type not in _DRAWS and not list(subgraphs(node))


def _condition(
    body: ir.Graph,
    nodes: set[ir.Node],
    first: Values,
    states: Sequence[ir.Value],
    after: Mapping[ir.Value, ir.Value],
    opsets: Mapping[str, int],
) -> ir.Model:
    """Some nodes of a body as a model of the states: whether the loop goes on, and the states after the trip."""
    new = {
        formal: ir.Value(
            name=formal.name,
            type=ir.TensorType(ir.DataType.from_numpy(first[formal].dtype)),
            shape=ir.Shape(first[formal].shape),
        )
        for formal in states
    }
    inputs = list(new.values())
    graph = ir.Graph(inputs, [], nodes=[], opset_imports=dict(opsets), name="condition")
    op = Ops(graph, "made/")

    def found(value: ir.Value) -> ir.Value:
        if value in new:
            return new[value]
        array = constant_array(value)
        assert array is not None
        return op.constant(array).value

    for node in body:
        if node in nodes:
            copy = ir.Node(
                node.domain,
                node.op_type,
                [None if value is None else found(value) for value in node.inputs],
                list(node.attributes.values()),
                num_outputs=len(node.outputs),
            )
            for old, value in zip(node.outputs, copy.outputs, strict=True):
                value.name = old.name
                new[old] = value
            graph.append(copy)
    ends = [body.outputs[0], *(after[formal] for formal in states if formal in after)]
    graph.outputs.extend(op.Identity(Tensor(found(end), op)).value for end in ends)
    return ir.Model(graph, ir_version=_IR_VERSION)
