"""Statistics of the gradient of every single weight: means over the samples, in float64.

    gradient_mean    mean_n |g_n|
    gradient_rms     sqrt( mean_n g_n^2 )

Memory is that of the weights, whatever the number of samples. An integer weight is measured where it has become real
numbers: at the output of its DequantizeLinear.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import NoGradientError, gradient
from onnxprune.graph import Weight, weights
from onnxprune.graph.flow import subgraphs
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import session
from onnxprune.sampling.objective import Objective
from onnxprune.sampling.stream import Answers, samples, stream

__all__ = ["MEAN", "RMS", "element_statistics", "has_gradient", "target"]

MEAN, RMS = "gradient_mean", "gradient_rms"

Array = np.ndarray


def target(model: ir.Model, weight: Weight) -> str:
    """The name of the real numbers that a weight is: its own, or its DequantizeLinear's output's.

    Raises:
        NoGradientError: It is in a loop, one of several of its name in branches, or integers that go into an op as
            they are.
    """
    if not has_gradient(model, weight):
        raise NoGradientError(
            f"the weight {weight.name!r} is inside a loop, or a branch where others have its name, and has no"
            " gradient here: --exclude it or use a criterion of the weights alone"
        )
    if weight.dtype.is_floating_point():
        return weight.name
    real = [
        node.outputs[0].name
        for node, index in weight.value.uses()
        if node.op_type == "DequantizeLinear" and index == 0
    ]
    if len(real) == 1 and len(list(weight.value.uses())) == 1 and real[0]:
        return real[0]
    raise NoGradientError(
        f"the weight {weight.name!r} holds integers that an op reads as they are, so it has no gradient:"
        " --exclude it or use a criterion of the weights alone"
    )


def has_gradient(model: ir.Model, weight: Weight) -> bool:
    """Whether `gradient` knows a weight by its name: in the main graph, or in a branch as the only one of its name."""
    if weight.graph is model.graph:
        return True
    if weight.kind == "constant_of_shape" or weight.graph not in set(_branches(model.graph)):
        return False
    return [other.name for other in weights(model)].count(weight.name) == 1


def _branches(graph: ir.Graph) -> Iterator[ir.Graph]:
    """The branches of the graph's If nodes, and those within them."""
    for node in graph:
        for body in subgraphs(node) if node.op_type == "If" else ():
            yield body
            yield from _branches(body)


def element_statistics(
    model: ir.Model,
    chosen: Mapping[str, Weight],
    kinds: Sequence[str],
    goal: Objective,
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
) -> dict[str, dict[str, Array]]:
    """Statistics of the gradients of some weights.

    Args:
        model: The model, without local functions.
        chosen: Its weights by the name that the criteria know them under.
        kinds: `MEAN`, `RMS` or both.
        goal: The loss.
        data: The samples.
        progress: Where it is shown.
        providers: onnxruntime providers by name.

    Returns:
        By kind, then by name, float64 in the shape of the weight, as `Context.statistics` takes it.

    Raises:
        NoGradientError: A weight has no gradient, or an op no rule.
    """
    targets = list(dict.fromkeys(target(model, weight) for weight in chosen.values()))
    feed, _, _ = next(samples(data))
    made = session(gradient(model, goal.loss, targets, feeds=feed), providers, frugal=True)
    total: dict[str, dict[str, Array]] = {kind: {} for kind in kinds}
    for _loss, *found in stream(made, Answers(goal), data, progress):
        for name, array in zip(targets, found, strict=True):
            wide = np.abs(array, dtype=np.float64)
            for kind in kinds:
                each = wide if kind == MEAN else wide**2
                if name in total[kind]:
                    total[kind][name] += each
                else:
                    total[kind][name] = each
    for kind in kinds:
        for array in total[kind].values():
            array /= len(data) * goal.draws
            if kind == RMS:
                np.sqrt(array, out=array)
    return {
        kind: {name: total[kind][target(model, weight)] for name, weight in chosen.items()}
        for kind in kinds
    }
