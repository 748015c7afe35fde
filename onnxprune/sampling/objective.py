"""What is differentiated when gradients are sampled: a loss for every sample, with labels or without.

1. Labels that are class indices: cross-entropy, from logits or, where the model gives probabilities, their logarithm.
2. Labels that are numbers: half the squared error.
3. No labels: the model's own predictions. The loss is the negative logarithm of the likelihood that the model gives
   to an answer *drawn from the model itself*, so that the expected square of a gradient is the Fisher information,
   and the Gauss-Newton matrix at once (Martens, "New insights and perspectives on the natural gradient method",
   JMLR 21, 2020). A classifier's answer is a class drawn from its softmax. Anything else is read as a Gaussian
   around its outputs, each of the scale that it has on this sample.

Draws depend on the seed and the sample's content alone, so neither the order of the samples nor how they are batched
changes them. The third way exists in two forms: `predictions` as above, and `outputs`, where the Gaussian is around the
logits of a classifier too. Its gradients do not vanish where the model is sure of itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.autodiff import CrossEntropy, Loss, Ops, SquaredError, Tensor
from onnxprune.autodiff.losses import Seeds
from onnxprune.autodiff.registry import NoGradientError
from onnxprune.errors import DataError
from onnxprune.graph import clone
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.scores.criterion import LossKind

__all__ = ["LogLikelihood", "Objective", "Projection", "objective"]

LABELS, DRAWN = "sampled labels", "sampled direction "
TINY = 1e-12

Array = np.ndarray
Feed = dict[str, Array]


@dataclass(frozen=True)
class LogLikelihood:
    """Cross-entropy of class labels against an output that holds probabilities: -sum log p[label].

    Attributes:
        output: Name of the output.
        labels: Name of the int64 input to add, in the shape of the output without its class axis.
        axis: The class axis.
    """

    output: str
    labels: str
    axis: int

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `onnxprune.autodiff.Loss`."""
        p = values[self.output]
        axis = self.axis % p.rank
        if p.shape[axis] is None:
            raise NoGradientError(f"the number of classes of {self.output!r} is not known")
        assert p.value.shape is not None
        sizes = [size for k, size in enumerate(p.value.shape.dims) if k != axis]
        labels = _input(op, self.labels, ir.DataType.INT64, ir.Shape(sizes))
        hard = op.one_hot(labels, op.constant(np.array(p.shape[axis])), axis, p.dtype)
        safe = op.Max(p, op.constant(np.array(TINY), p.dtype))
        return -op.ReduceSum(hard * op.Log(safe), keepdims=0), [(p, -(hard / safe))]


@dataclass(frozen=True)
class Projection:
    """The sum of some outputs, each multiplied by a direction that is fed: sum_o <v_o, y_o>.

    Attributes:
        outputs: Names of the outputs; the input for each is named after it.
    """

    outputs: tuple[str, ...]

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> tuple[Tensor, Seeds]:
        """See `onnxprune.autodiff.Loss`."""
        seeds, total = [], None
        for name in self.outputs:
            y = values[name]
            v = _input(op, DRAWN + name, y.dtype, y.value.shape)
            term = op.ReduceSum(y * v, keepdims=0)
            total = term if total is None else total + term
            seeds.append((y, v))
        assert total is not None
        return total, seeds


def _input(op: Ops, name: str, dtype: ir.DataType, shape: ir.Shape | None) -> Tensor:
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape)
    op.graph.inputs.append(value)
    return Tensor(value, op)


@dataclass(frozen=True)
class Objective:
    """A loss and what to feed it.

    Attributes:
        loss: Summed over what is in a feed.
        note: What the gradients are of, for the report.
        forward: Runs the model where the answers are drawn from it.
        seed: Of the draws.
        classes: Class axes of the outputs that are a classifier's.
        draws: How many answers are drawn for each sample.
    """

    loss: Loss
    note: str
    forward: ort.InferenceSession | None = None
    seed: int = 0
    classes: Mapping[str, int] = field(default_factory=dict)
    draws: int = 1

    @property
    def is_linear(self) -> bool:
        """Whether it is a direction of the outputs, so that its difference is how far they moved."""
        return isinstance(self.loss, Projection)

    def answers(self, feed: Feed, labels: Array | None, draw: int = 0) -> Feed:
        """The loss's inputs for one sample.

        Args:
            feed: The sample as the model takes it.
            labels: Its labels, used where the loss is one of labels.
            draw: Number of the draw.
        """
        loss = self.loss
        if isinstance(loss, SquaredError) and labels is not None:
            return {loss.target: labels}
        if isinstance(loss, CrossEntropy | LogLikelihood) and self.forward is None:
            assert labels is not None
            return {loss.labels: labels}
        assert self.forward is not None
        rng = _generator(feed, self.seed, draw)
        if isinstance(loss, CrossEntropy | LogLikelihood):
            (y,) = run(self.forward, feed, [loss.output])
            given = isinstance(loss, LogLikelihood)
            return {loss.labels: _drawn(y, loss.axis, given, rng)}
        assert isinstance(loss, Projection)
        ys = run(self.forward, feed, loss.outputs)
        return {
            DRAWN + name: _direction(y, self.classes.get(name), rng)
            for name, y in zip(loss.outputs, ys, strict=True)
        }


def objective(
    model: ir.Model,
    data: Dataset,
    seed: int = 0,
    providers: Sequence[str] = ("cpu",),
    kind: LossKind = "labels",
) -> Objective:
    """The loss that suits a model and a data set.

    Args:
        model: The model, without local functions.
        data: The samples, with labels or without; the first is run to see what the outputs are.
        seed: Of the draws where there are no labels.
        providers: onnxruntime providers by name.
        kind: `labels` where there are any, else the model's `predictions`; those in any case; or its `outputs`.

    Raises:
        DataError: The labels fit no output, or no output is of a float type.
        ModelError: onnxruntime does not run the model.
    """
    watched = _before_softmax(model)
    forward = session(watched, providers)
    first = data.feed(next(iter(data.batch_rows(1))))
    names = [v.name or "" for v in watched.graph.outputs]
    arrays = dict(zip(names, run(forward, first, names), strict=True))
    floats = {k: y for k, y in arrays.items() if isinstance(y, np.ndarray) and y.dtype.kind in "fV"}
    if not floats:
        raise DataError("gradients need an output of floating-point numbers; the model has none")
    if kind == "labels" and data.labels is not None:
        return _labelled(floats, data, 1 if data.stacked else len(next(iter(first.values()))))
    classes = {name: axis for name, y in floats.items() if (axis := own_classes(y)) is not None}
    if kind != "outputs" and classes:
        name, axis = next(iter(classes.items()))
        note = "the model's own predictions: classes drawn from its softmax"
        return Objective(_classification(name, floats[name], axis), note, forward, seed)
    note = (
        "the model's own outputs"
        if kind == "outputs"
        else "the model's own outputs, drawn from a Gaussian around them"
    )
    return Objective(Projection(tuple(floats)), note, forward, seed, classes)


def _before_softmax(model: ir.Model) -> ir.Model:
    """A copy whose outputs are what enters the Softmax or LogSoftmax that an output comes out of."""
    copy = clone(model)
    for k, value in enumerate(copy.graph.outputs):
        node = value.producer()
        if node is not None and node.op_type in ("Softmax", "LogSoftmax"):
            (before,) = node.inputs
            if before is not None and before.name and not before.is_graph_output():
                before.type = before.type or value.type
                before.shape = before.shape or value.shape
                copy.graph.outputs[k] = before
    return copy


def _labelled(
    outputs: Mapping[str, Array],
    data: Dataset,
    batch: int,
) -> Objective:
    labels = data.labels
    assert labels is not None
    row = labels[:1] if data.stacked else labels[:batch]
    if labels.dtype.kind in "iu":
        for name, y in outputs.items():
            axis = _class_axis(y.shape, row.size, int(labels.max()))
            if axis is not None:
                return Objective(_classification(name, y, axis), "cross-entropy with the labels")
    for name, y in outputs.items():
        if y.size == row.size:
            return Objective(SquaredError(name, LABELS, "sum"), "the squared error to the labels")
    shapes = ", ".join(f"{name!r} {y.shape}" for name, y in outputs.items())
    raise DataError(
        f"labels of shape {labels.shape} fit no output ({shapes}): leave them out to use the model's own predictions"
    )


def _classification(name: str, y: Array, axis: int) -> CrossEntropy | LogLikelihood:
    """Cross-entropy from logits, or from probabilities where they do not come straight out of a Softmax."""
    if _is_distribution(y, axis):
        return LogLikelihood(name, LABELS, axis)
    return CrossEntropy(name, LABELS, axis, reduction="sum")


def _class_axis(shape: Sequence[int], labels: int, largest: int) -> int | None:
    """The axis without which the output has one element for every label."""
    axes: list[int] = [1, len(shape) - 1, *range(2, len(shape) - 1)] if len(shape) > 1 else []
    for axis in axes:
        if shape[axis] > max(largest, 1) and int(np.prod(shape)) == labels * shape[axis]:
            return int(axis)
    return None


def own_classes(y: Array) -> int | None:
    """The class axis of an output that looks like a classifier's."""
    for axis in (1, y.ndim - 1):
        if 0 < axis < y.ndim and y.shape[axis] > 1:
            rest = int(y.size) // (y.shape[axis] * y.shape[0])
            if rest == 1 or _is_distribution(y, axis):
                return int(axis)
    return None


def _is_distribution(y: Array, axis: int) -> bool:
    wide = y.astype(np.float64)
    return bool((wide >= -1e-6).all() and np.allclose(wide.sum(axis), 1, atol=1e-2))


def _drawn(y: Array, axis: int, probabilities: bool, rng: np.random.Generator) -> Array:
    """Classes drawn along an axis."""
    p = np.moveaxis(y.astype(np.float64), axis, -1)
    if not probabilities:
        p = np.exp(p - p.max(-1, keepdims=True))
    steps = np.cumsum(p, -1)
    at = rng.random(steps.shape[:-1])[..., None] * steps[..., -1:]
    drawn: Array = np.minimum((steps <= at).sum(-1), p.shape[-1] - 1)
    return drawn.astype(np.int64)


def _direction(y: Array, classes: int | None, rng: np.random.Generator) -> Array:
    """Normal numbers on the scale of an output; what shifts all classes alike is left out, since it changes nothing."""
    v, wide = rng.standard_normal(y.shape), y.astype(np.float64)
    if classes is not None:
        v -= v.mean(classes, keepdims=True)
        wide = wide - wide.mean(classes, keepdims=True)
    return (v / max(float(np.sqrt(np.mean(wide**2))), TINY)).astype(y.dtype)


def _generator(feed: Feed, seed: int, draw: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{draw}".encode())
    for name in sorted(feed):
        array = feed[name]
        digest.update(
            str(array.tolist()).encode()
            if array.dtype.hasobject
            else np.ascontiguousarray(array).tobytes()
        )
    return np.random.default_rng(int.from_bytes(digest.digest()[:16], "little"))
