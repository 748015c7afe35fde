"""BatchNormalization while training: with live statistics, with frozen ones, or re-estimated alone.

Frozen, a node stays the affine function that inference sees, and its scale and bias are trained like any
weight. Live, it normalises by the statistics of the batch and carries the running ones along (Ioffe and
Szegedy 2015, arXiv:1502.03167), which a network that has lost weights needs:

    running = m running + (1 - m) batch          variances biased, as ONNX has it; m = 0.9

Re-estimation takes the statistics of the data as they come out of the model as it is now: what pruning
shifts, and what needs neither labels nor gradients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.prepare import prepare
from onnxprune.errors import ModelError, NothingToPruneError
from onnxprune.graph import Weight, clone, constant, replace, weights
from onnxprune.progress import Progress, Silent
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session

__all__ = ["Live", "has_batchnorm", "live", "reestimate"]


@dataclass(frozen=True)
class Live:
    """A model whose BatchNormalizations normalise by the batch.

    Attributes:
        model: The copy.
        running: Running statistic to the value that holds that of the batch.
    """

    model: ir.Model
    running: dict[str, str]


def has_batchnorm(model: ir.Model) -> bool:
    """Whether the main graph has any."""
    return bool(_nodes(model))


def live(
    model: ir.Model,
    feeds: Mapping[str, np.ndarray] | None = None,
) -> Live:
    """A copy in training mode, for `training_step(..., running=)`; nothing is running without such nodes.

    Its nodes give the statistics of the batch alone, which the backward pass needs too; the step keeps the average.

    Args:
        model: A model without local functions; below opset 14, which brought the training mode, the copy
            is raised to opset 18.
        feeds: A batch of the model's inputs, to learn shapes from where the opset is raised.

    Raises:
        ModelError: The running statistics of a node are no constants of its own.
    """
    raised = _nodes(model) and model.opset_imports.get("", 0) < 14
    copy = prepare(model, feeds) if raised else clone(model)
    running = {}
    for node in _nodes(copy):
        node.attributes["training_mode"] = ir.AttrInt64("training_mode", 1)
        node.attributes["momentum"] = ir.AttrFloat32("momentum", 0.0)
        node.resize_outputs(3)
        for index, output in zip((3, 4), node.outputs[1:], strict=True):
            value = _as_initializer(copy.graph, node.inputs[index])
            if value is None or not value.is_initializer() or len(value.uses()) != 1:
                raise ModelError(
                    f"node {node.name}: its running statistics are no constants of its own"
                )
            node.replace_input_with(index, _emptied(copy.graph, node, value))
            output.name = f"{value.name}/batch"
            output.type = value.type
            running[value.name or ""] = output.name
    return Live(copy, running)


def _emptied(graph: ir.Graph, node: ir.Node, value: ir.Value) -> ir.Value:
    """Zeros in the shape of a value, for a node to write over: onnxruntime's kernel gives statistics in place."""
    zeros = ir.node("Sub", [value, value])
    zeros.outputs[0].name = f"{value.name}/none"
    zeros.outputs[0].type, zeros.outputs[0].shape = value.type, value.shape
    graph.insert_before(node, zeros)
    return zeros.outputs[0]


def _as_initializer(graph: ir.Graph, value: ir.Value | None) -> ir.Value | None:
    """The output of a Constant node as an initializer of the same name; any other value as it is."""
    node = None if value is None else value.producer()
    tensor = None if value is None else constant(value)
    if value is None or node is None or tensor is None:
        return value
    new = ir.Value(
        name=value.name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape.numpy())
    )
    new.const_value = ir.Tensor(tensor.numpy(), name=value.name)
    value.name = None
    ir.convenience.replace_all_uses_with(value, new)
    graph.remove(node, safe=True)
    graph.register_initializer(new)
    return new


def _nodes(model: ir.Model) -> list[ir.Node]:
    return [
        node for node in model.graph if node.op_type == "BatchNormalization" and not node.domain
    ]


def reestimate(
    model: ir.Model,
    data: Dataset,
    *,
    batch: int = 64,
    providers: Sequence[str] = ("cpu",),
    progress: Progress | None = None,
) -> int:
    """Gives every BatchNormalization the mean and variance that the data have where it stands, in place.

    Each batch is normalised by itself on its way; the variance of the whole is that within batches and
    that of their means.

    Args:
        model: A model without local functions.
        data: Samples, without labels.
        batch: Samples a run.
        providers: onnxruntime providers by name.
        progress: Where it is shown.

    Returns:
        How many nodes were re-estimated.

    Raises:
        NothingToPruneError: The model has no BatchNormalization (it may have been folded away).
        ModelError: See `live`.
    """
    found = live(model, data.feed(next(data.batch_rows(2))))
    if not found.running:
        raise NothingToPruneError("the model has no BatchNormalization to re-estimate")
    found.model.graph.outputs.clear()
    values = {value.name: value for node in found.model.graph for value in node.outputs}
    found.model.graph.outputs.extend(values[name] for name in found.running.values())
    made = session(found.model, providers)
    names = list(found.running)
    sums = [np.zeros(1)] * len(names)
    squares = [np.zeros(1)] * len(names)
    count = 0
    with (progress or Silent()).step("re-estimating", total=len(data)) as advance:
        for rows in data.batch_rows(batch):
            size = rows.stop - rows.start
            results = [np.asarray(each, np.float64) for each in run(made, data.feed(rows))]
            sums = [a + size * b for a, b in zip(sums, results, strict=True)]
            squares = [a + size * b * b for a, b in zip(squares, results, strict=True)]
            count += size
            advance(size)
    owned = {weight.name: weight for weight in weights(model) if weight.graph is model.graph}
    for k in range(0, len(names), 2):  # a mean, then its variance
        mean = sums[k] / count
        between = squares[k] / count - mean**2
        _write(owned[names[k]], mean)
        _write(owned[names[k + 1]], sums[k + 1] / count + np.maximum(between, 0.0))
    return len(names) // 2


def _write(weight: Weight, array: np.ndarray) -> None:
    replace(weight, array.astype(weight.dtype.numpy()))
