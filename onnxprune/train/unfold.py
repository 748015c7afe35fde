"""BatchNormalization put back for the time of training, where an exporter has folded it into the convolutions.

    conv(x) + b   ->   s (conv(x) + b - m) / sqrt(v + e) + m,   s = sqrt(v + e),  m and v of the data

is the same function, and trains as a network does that still has its normalisation: at higher rates, to a better end
(Ioffe and Szegedy 2015, arXiv:1502.03167). When the training is over all of it goes back into the kernel and the bias.
A convolution without a bias has none folded into it, and stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.graph import Weight, weights
from onnxprune.graph.edit import Edit
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train.lift import Arrays
from onnxprune.train.loop import Trained

__all__ = ["Unfolded", "unfold"]

EPSILON = 1e-5
SAMPLES = 256
"""Enough for statistics of channels, which are over all positions."""
BATCH = 32


@dataclass(frozen=True)
class _Put:
    """One node, by the names of its constants and of those of its convolution."""

    kernel: str
    bias: str
    scale: str
    shift: str
    mean: str
    variance: str


@dataclass(frozen=True)
class Unfolded:
    """A model with its normalisation put back.

    Attributes:
        model: A copy.
        chosen: Its weights to train: scales and shifts instead of the biases that they make up for.
    """

    model: ir.Model
    chosen: list[Weight]
    _put: tuple[_Put, ...]

    def folded(self, trained: Trained) -> Trained:
        """What was trained, in terms of the weights of the model as it was."""
        found = dict(trained.weights)
        biases = {weight.name: weight.array() for weight in weights(self.model)}
        for put in self._put:
            scale, shift, mean, variance = (
                np.asarray(found.pop(name), np.float64)
                for name in (put.scale, put.shift, put.mean, put.variance)
            )
            factor = scale / np.sqrt(variance + EPSILON)
            kernel, bias = found[put.kernel], biases[put.bias]
            whole = kernel * factor.reshape(-1, *[1] * (kernel.ndim - 1))
            found[put.kernel] = (whole + 0.0).astype(kernel.dtype)  # no zero is a negative one
            found[put.bias] = ((bias - mean) * factor + shift).astype(bias.dtype)
        return replace(trained, weights=found)


def unfold(
    model: ir.Model,
    chosen: Sequence[Weight],
    data: Dataset,
    providers: Sequence[str] = ("cpu",),
    seed: int = 0,
) -> Unfolded:
    """Puts a BatchNormalization behind every convolution that is trained, kernel and bias.

    Args:
        model: A model without local functions; left as it is.
        chosen: Its weights to train.
        data: Samples, whose statistics it begins with.
        providers: onnxruntime providers by name.
        seed: Of the choice of samples, where there are many.
    """
    own = {weight.value: weight for weight in chosen}
    nodes = [node for node in model.graph if _takes_one(node, own)]
    if not nodes:
        return Unfolded(model, list(chosen), ())
    some = np.random.default_rng([seed, 5]).permutation(len(data))[:SAMPLES]
    few = data if data.fixed_batch is not None else data.subset(np.sort(some))
    statistics = _statistics(model, nodes, few, providers)
    edit, done = Edit(model), []
    made: set[str] = set()
    for node, (mean, variance) in zip(nodes, statistics, strict=True):
        kernel, bias = (own[value] for value in node.inputs[1:] if value is not None)
        output, users = node.outputs[0], list(edit.value[node.outputs[0]].uses())
        starts = np.sqrt(variance + EPSILON), mean, mean, variance
        values = [
            edit.constant(model.graph, f"{output.name}/{kind}", ir.Tensor(start.astype(np.float32)))
            for kind, start in zip(("scale", "shift", "mean", "variance"), starts, strict=True)
        ]
        twin = edit.node[node]
        normal = ir.Node(
            "",
            "BatchNormalization",
            [twin.outputs[0], *values],
            [ir.AttrFloat32("epsilon", EPSILON)],
        )
        normal.name = edit.unused(f"{node.name or output.name}/normalised")
        normal.outputs[0].name = edit.unused(f"{output.name}/normalised")
        normal.outputs[0].type, normal.outputs[0].shape = output.type, output.shape
        edit.model.graph.insert_after(twin, normal)
        for user, index in users:
            user.replace_input_with(index, normal.outputs[0])
        names = [value.name or "" for value in values]
        done.append(_Put(kernel.name, bias.name, *names))
        made |= set(names[:2])
    gone = {put.bias for put in done}
    kept = {weight.name for weight in chosen} - gone | made
    trained = [w for w in weights(edit.model) if w.graph is edit.model.graph and w.name in kept]
    return Unfolded(edit.model, trained, tuple(done))


def _takes_one(node: ir.Node, own: dict[ir.Value, Weight]) -> bool:
    """Whether it is a convolution with kernel and bias of its own, both trained, in single precision, in the middle."""
    if node.op_type != "Conv" or node.domain or len(node.inputs) < 3:
        return False
    constants, output = node.inputs[1:], node.outputs[0]
    return (
        all(value in own and len(value.uses()) == 1 for value in constants if value is not None)
        and None not in constants
        and all(own[value].dtype == ir.DataType.FLOAT for value in constants if value is not None)
        and not output.is_graph_output()
        and bool(output.uses())
        and not any(user.op_type == "BatchNormalization" for user, _ in output.uses())
    )


def _statistics(
    model: ir.Model, nodes: Sequence[ir.Node], data: Dataset, providers: Sequence[str]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and variance of every channel of what these nodes give, over samples and positions."""
    edit = Edit(model)
    edit.model.graph.outputs.clear()
    edit.model.graph.outputs.extend(edit.value[node.outputs[0]] for node in nodes)
    made = session(edit.model, providers)
    sums: list[Arrays] = [{} for _ in nodes]
    for feed in data.batches(BATCH):
        for total, array in zip(sums, run(made, feed), strict=True):
            over = (0, *range(2, array.ndim))
            count = array.size / array.shape[1]
            mean = array.mean(over, dtype=np.float64)
            parts = {"n": np.array(count), "x": count * mean}
            parts["xx"] = count * (array.var(over, dtype=np.float64) + mean**2)
            for key, part in parts.items():
                total[key] = total.get(key, np.zeros(1)) + part
    found = []
    for total in sums:
        mean = total["x"] / total["n"]
        found.append((mean, np.maximum(total["xx"] / total["n"] - mean**2, 0.0)))
    return found
