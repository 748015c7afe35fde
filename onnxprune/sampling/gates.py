"""First-order loss of a whole index of a Dim, measured where the model uses it up.

Multiply everything that an index j carries by a gate of 1 just where it enters the nodes that sum over it (the next
convolution, the next matrix product): removing the index turns the gate to 0. The loss's derivative with respect to
the gate is, for one sample n,

    t_jn = sum over those nodes, over all positions:  x_j dL_n/dx_j  =  sum over the columns of j:  w dL_n/dw

that is, the signed sum of w g over the weights that read the index, for the price of gradients of activations only.
The saliency is the mean of t_jn^2 over the samples: Molchanov et al., "Importance estimation for neural network
pruning", CVPR 2019, equation 8, with gates as in its section 3.2. With answers drawn from the model itself half of it
is the Gauss-Newton estimate of the loss: Theis et al., "Faster gaze prediction with dense networks and Fisher
pruning", 2018, arXiv:1801.05787.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import Ops, Tensor, gradient
from onnxprune.dims import Axis, Dim, Keep, Tracing, keep_mask, leaves, positions, size
from onnxprune.graph import clone
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.sampling.objective import Objective
from onnxprune.sampling.stream import Answers, samples, stream

__all__ = ["Gate", "Gates", "gates"]

PREFIX = "gates/"

Array = np.ndarray


@dataclass(frozen=True)
class Gate:
    """An axis of a value, just before a node sums over it.

    Attributes:
        node: Place of the node in the graph; None: all nodes that read the value.
        index: Which input of the node.
        value: Name of the value.
        axis: Number of the axis.
        rank: How many axes the value has.
        holds: What the axis is.
    """

    node: int | None
    index: int
    value: str
    axis: int
    rank: int
    holds: Axis


def gates(tracing: Tracing, dims: Sequence[Dim]) -> list[Gate]:
    """Where Dims are summed over; of a Dim that no node sums over, the last value that carries it."""
    wanted = set(dims)
    found: list[Gate] = []
    for place, node in enumerate(tracing.model.graph):
        stays = {
            dim for v in node.outputs for axis in tracing.axes.get(v, ()) for dim in leaves(axis)
        }
        taken: set[Dim] = set()
        for index, value in enumerate(node.inputs):
            if not _is_float(value, tracing):
                continue
            assert value is not None
            for k, axis in enumerate(tracing.axes[value]):
                mine = set(leaves(axis)) & wanted - stays - taken
                if mine:
                    taken |= mine
                    found.append(
                        Gate(place, index, value.name or "", k, len(tracing.axes[value]), axis)
                    )
    seen = {dim for gate in found for dim in leaves(gate.holds)}
    left = wanted - seen
    for node in reversed(tracing.model.graph):
        for value in node.outputs:
            if not _is_float(value, tracing):
                continue
            for k, axis in enumerate(tracing.axes[value]):
                mine = set(leaves(axis)) & left
                if mine:
                    left -= mine
                    found.append(Gate(None, 0, value.name or "", k, len(tracing.axes[value]), axis))
    return found


def _is_float(value: ir.Value | None, tracing: Tracing) -> bool:
    return (
        value is not None
        and bool(value.name)
        and value in tracing.axes
        and not value.is_initializer()
        and (value.dtype is None or value.dtype.is_floating_point())
    )


class Gates:
    """The gates of some Dims, ready to be run at any choice of what is closed.

    Args:
        tracing: The model.
        dims: The Dims.
        goal: The loss.
        data: The samples.
        providers: onnxruntime providers by name.

    Attributes:
        nodes: Of the model that gives the derivatives.
    """

    def __init__(
        self,
        tracing: Tracing,
        dims: Sequence[Dim],
        goal: Objective,
        data: Dataset,
        providers: Sequence[str] = ("cpu",),
    ) -> None:
        self.dims, self.data, self._answers = list(dims), data, Answers(goal)
        self.found = gates(tracing, dims)
        feed, _, _ = next(samples(data))
        model = _gate_model(tracing, self.found, goal, feed)
        self.nodes = sum(1 for _ in model.graph)
        self.session = session(model, providers, frugal=True)
        self.maps = [
            (k, dim, positions(gate.holds, dim))
            for k, gate in enumerate(self.found)
            for dim in dict.fromkeys(leaves(gate.holds))
            if dim in set(dims)
        ]

    def draw(self, times: int) -> None:
        """Draws so many answers for each sample from now on, where they are drawn."""
        self._answers = Answers(replace(self._answers.goal, draws=times))

    def each(self, keep: Keep, progress: Progress) -> Iterator[tuple[float, dict[Dim, Array]]]:
        """For every sample its loss, and the derivative at the gate of each index: float64, shape (dim.size,).

        Args:
            keep: What is left of Dims that have lost indices already.
            progress: Where it is shown.
        """
        masks = {
            f"{PREFIX}{k}": keep_mask(gate.holds, keep).astype(np.float32)
            for k, gate in enumerate(self.found)
        }
        for loss, *vectors in stream(self.session, self._answers, self.data, progress, masks):
            one = {dim: np.zeros(dim.size) for dim in self.dims}
            for k, dim, rows in self.maps:
                for row in rows:
                    own = row >= 0
                    one[dim] += np.bincount(row[own], weights=vectors[k][own], minlength=dim.size)
            yield float(loss), one


def _gate_model(
    tracing: Tracing, found: Sequence[Gate], goal: Objective, feed: Mapping[str, Array]
) -> ir.Model:
    """The model that takes a mask for each gate, and gives sum x dL/dx along its axis, after the loss."""
    model = clone(tracing.model)
    nodes, values = list(model.graph), dict(_values(model.graph))
    _find_types(model, [values[gate.value] for gate in found], feed)
    names = [
        _insert(model.graph, k, gate, None if gate.node is None else nodes[gate.node], values)
        for k, gate in enumerate(found)
    ]
    masks = {f"{PREFIX}{k}": np.ones(size(gate.holds), "f4") for k, gate in enumerate(found)}
    differentiated = gradient(model, goal.loss, names, feeds={**feed, **masks})
    graph = differentiated.graph
    op = Ops(graph, "product/")
    known, outputs = dict(_values(graph)), list(graph.outputs)[1:]
    del graph.outputs[1:]
    for gate, name, output in zip(found, names, outputs, strict=True):
        product = Tensor(known[name], op) * Tensor(output, op)
        rest = [axis for axis in range(_rank(known[name])) if axis != gate.axis]
        graph.outputs.append(op.cast(op.sum(product, rest), ir.DataType.FLOAT).value)
    return differentiated


def _find_types(model: ir.Model, chosen: Sequence[ir.Value], feed: Mapping[str, Array]) -> None:
    """Runs the model where values are not annotated."""
    unknown = {value.name or "": value for value in chosen if value.dtype is None}
    if not unknown:
        return
    probe = clone(model)
    known = dict(_values(probe.graph))
    probe.graph.outputs[:] = [known[name] for name in unknown]
    arrays = run(session(probe), feed)
    for value, array in zip(unknown.values(), arrays, strict=True):
        value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))


def _rank(value: ir.Value) -> int:
    assert value.shape is not None
    return len(value.shape)


def _insert(
    graph: ir.Graph,
    k: int,
    gate: Gate,
    reader: ir.Node | None,
    values: Mapping[str, ir.Value],
) -> str:
    """Multiplies what a node reads by a mask, and gives back the product's name."""
    value = values[gate.value] if reader is None else reader.inputs[gate.index]
    assert value is not None
    uses = list(value.uses()) if reader is None else [(reader, gate.index)]
    n = size(gate.holds)
    mask = ir.Value(name=f"{PREFIX}{k}", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([n]))
    graph.inputs.append(mask)
    shape = ir.tensor(np.array([n, *[1] * (gate.rank - gate.axis - 1)], np.int64))
    target = ir.Node("", "Constant", [], [ir.AttrTensor("value", shape)], num_outputs=1)
    assert value.dtype is not None
    cast = ir.Node("", "Cast", [mask], [ir.AttrInt64("to", value.dtype)], num_outputs=1)
    wide = ir.Node("", "Reshape", [cast.outputs[0], target.outputs[0]], num_outputs=1)
    product = ir.Node("", "Mul", [value, wide.outputs[0]], num_outputs=1)
    product.outputs[0].type = value.type
    new = [target, cast, wide, product]
    for node, part in zip(new, ("shape", "cast", "wide", "open"), strict=True):
        node.name = node.outputs[0].name = f"{PREFIX}{k}/{part}"
    if reader is not None:
        graph.insert_before(reader, new)
    else:
        maker = value.producer()
        assert maker is not None
        graph.insert_after(maker, new)
    for node, index in uses:
        node.replace_input_with(index, product.outputs[0])
    return f"{PREFIX}{k}/open"


def _values(graph: ir.Graph) -> Iterator[tuple[str, ir.Value]]:
    for value in graph.inputs:
        yield value.name or "", value
    for node in graph:
        for value in node.outputs:
            if value.name:
                yield value.name, value
