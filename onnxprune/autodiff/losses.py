"""Losses as graphs.

A loss writes the nodes of its value and says what its gradient is at the values it starts from (its
*seeds*); the driver carries those on through the model. With N samples, K classes, logits z, p =
softmax(z / T):

    cross-entropy    L = -1/N sum_n sum_k q log p          dL/dz = (p - q) / N          (T = 1)
                     q = (1 - s) onehot(label) + s / K     with label smoothing s: Szegedy et al.
                                                           2016, arXiv:1512.00567
    distillation     L = T^2/N sum_n KL(p_teacher || p)    dL/dz = T (p - p_teacher) / N
                                                           Hinton et al. 2015, arXiv:1503.02531
    squared error    L = mean (y - t)^2                    dL/dy = 2 (y - t) / size
    a named output   L = sum y                             dL/dy = 1

Where a model ends in Softmax or LogSoftmax, cross-entropy and distillation start from what enters
it: the same loss, without the loss of digits. `reduction="sum"` leaves out the 1/N, so that
gradients of samples add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import NoGradientError
from onnxprune.errors import OptionError

__all__ = [
    "CrossEntropy",
    "Distillation",
    "Loss",
    "Output",
    "Seeds",
    "SquaredError",
    "Weighted",
    "class_axis",
]

Reduction = Literal["mean", "sum"]
Seeds = list[tuple[Tensor, Tensor]]
"""Values of the model, each with the loss's gradient at it."""


class Loss(Protocol):
    """What can be differentiated."""

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """Write the loss's nodes.

        Args:
            op: Writes them; new graph inputs are added to `op.graph.inputs`.
            values: The model's values by name.

        Returns:
            The loss, a scalar, and its gradients at values of the model.
        """
        ...


@dataclass(frozen=True)
class Output:
    """The sum of a named value's elements, whatever it is."""

    name: str

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `Loss`."""
        y = _named(values, self.name)
        one = op.constant(np.ones(()), y.dtype)
        return op.ReduceSum(y, keepdims=0), [(y, op.Expand(one, op.shape_of(y)))]


@dataclass(frozen=True)
class SquaredError:
    """Mean squared error of an output against the graph input `target`, of the same shape.

    Attributes:
        output: Name of the output.
        target: Name of the input to add.
        reduction: "mean" over all elements, or "sum".
    """

    output: str
    target: str = "target"
    reduction: Reduction = "mean"

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `Loss`."""
        y = _named(values, self.output)
        error = y - _input(op, values, self.target, y.dtype, y.value.shape)
        scale = _scale(op, y, None, self.reduction)
        return op.ReduceSumSquare(error, keepdims=0) * scale, [(y, error * (2.0 * scale))]


@dataclass(frozen=True)
class CrossEntropy:
    """Cross-entropy of class labels.

    The labels are an int64 input in the shape of the output without its class axis.

    Attributes:
        output: Name of the output: logits, probabilities out of a Softmax, or their logarithms out
            of a LogSoftmax.
        labels: Name of the input to add.
        axis: The output's class axis.
        smoothing: Label smoothing, 0 <= s < 1.
        reduction: "mean" over samples (and positions), or "sum".
    """

    output: str
    labels: str = "labels"
    axis: int = 1
    smoothing: float = 0.0
    reduction: Reduction = "mean"

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `Loss`."""
        if not 0 <= self.smoothing < 1:
            raise OptionError(f"label smoothing is 0 or more and below 1, not {self.smoothing:g}")
        y = _named(values, self.output)
        axis = class_axis(y, self.axis)
        z, classes = _logits(y, axis), y.shape[axis]
        if classes is None:
            raise NoGradientError(
                f"the number of classes of {self.output!r} is not known: its axis {axis} is dynamic"
            )
        assert z.value.shape is not None
        sizes = [dim for i, dim in enumerate(z.value.shape.dims) if i != axis]
        labels = _input(op, values, self.labels, ir.DataType.INT64, ir.Shape(sizes))
        hard = op.one_hot(labels, op.constant(np.array(classes)), axis, z.dtype)
        q = hard * (1.0 - self.smoothing) + self.smoothing / classes if self.smoothing else hard
        scale = _scale(op, z, axis, self.reduction)
        loss = -op.ReduceSum(q * op.LogSoftmax(z, axis=axis), keepdims=0) * scale
        return loss, [(z, (op.Softmax(z, axis=axis) - q) * scale)]


@dataclass(frozen=True)
class Distillation:
    """Kullback-Leibler divergence from a teacher's outputs: no labels needed.

    Attributes:
        output: Name of the output, as in `CrossEntropy`.
        teacher: Name of the input to add: the teacher's output of the same name, in the same shape.
        axis: The class axis.
        temperature: Softens both sides; the loss is scaled by its square.
        reduction: "mean" over samples (and positions), or "sum".
    """

    output: str
    teacher: str = "teacher"
    axis: int = 1
    temperature: float = 1.0
    reduction: Reduction = "mean"

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `Loss`."""
        if not self.temperature > 0:
            raise OptionError(f"a temperature is above 0, not {self.temperature:g}")
        y = _named(values, self.output)
        axis = class_axis(y, self.axis)
        z = _logits(y, axis)
        teacher = _input(op, values, self.teacher, y.dtype, y.value.shape)
        producer = y.value.producer()
        if z is not y and producer is not None and producer.op_type == "Softmax":
            teacher = op.Log(op.Max(teacher, 1e-30 if z.dtype != ir.DataType.FLOAT16 else 6e-8))
        log_p = op.LogSoftmax(z / self.temperature, axis=axis)
        log_q = op.LogSoftmax(teacher / self.temperature, axis=axis)
        p, q = op.Exp(log_p), op.Exp(log_q)
        scale = _scale(op, z, axis, self.reduction) * self.temperature
        loss = op.ReduceSum(q * (log_q - log_p), keepdims=0) * (scale * self.temperature)
        return loss, [(z, (p - q) * scale)]


@dataclass(frozen=True)
class Weighted:
    """A weighted sum of losses.

    Attributes:
        terms: The losses, each with its weight.
    """

    terms: tuple[tuple[float, Loss], ...]

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `Loss`."""
        total: Tensor | None = None
        seeds: Seeds = []
        for weight, loss in self.terms:
            term, term_seeds = loss.build(op, values)
            total = term * weight if total is None else total + term * weight
            seeds += [(value, seed * weight) for value, seed in term_seeds]
        if total is None:
            raise NoGradientError("a sum of no losses has no gradient")
        return total, seeds


def _named(values: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in values:
        raise NoGradientError(f"the loss starts from {name!r}, which the model does not have")
    return values[name]


def class_axis(y: Tensor, axis: int) -> int:
    """The number of an axis, counted from the front.

    Raises:
        NoGradientError: There is none of that number.
    """
    if not -y.rank <= axis < y.rank:
        raise NoGradientError(
            f"{y.value.name!r} has {y.rank} axes, so none of number {axis} that could be its classes"
        )
    return axis % y.rank


def _logits(y: Tensor, axis: int) -> Tensor:
    """What enters the Softmax or LogSoftmax over `axis` that `y` comes out of, else `y`."""
    node = y.value.producer()
    if node is None or node.op_type not in {"Softmax", "LogSoftmax"} or node.inputs[0] is None:
        return y
    same = node.attributes.get_int("axis", -1) % y.rank == axis
    return Tensor(node.inputs[0], y.ops) if same else y


def _scale(op: Ops, y: Tensor, class_axis: int | None, reduction: Reduction) -> Tensor:
    """One over the number of elements, those along the class axis counted once."""
    if reduction == "sum":
        return op.constant(np.ones(()), y.dtype)
    return 1.0 / op.size(y, [a for a in range(y.rank) if a != class_axis], y.dtype)


def _input(
    op: Ops,
    values: Mapping[str, Tensor],
    name: str,
    dtype: ir.DataType,
    shape: ir.Shape | None,
) -> Tensor:
    """A new graph input; one that another term of the loss has added serves again."""
    if name in values:
        raise NoGradientError(
            f"the model has a value {name!r} already: give the loss's input another name"
        )
    for value in op.graph.inputs:
        if value.name == name:
            if value.dtype != dtype:
                raise NoGradientError(
                    f"two terms of the loss take {name!r}, as {value.dtype} and as {dtype}"
                )
            return Tensor(value, op)
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
    op.graph.inputs.append(value)
    return Tensor(value, op)
