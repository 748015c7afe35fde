"""A training step as one ONNX model: forward, loss, backward and update.

    inputs:  the batch, what the loss needs (labels, teacher), rate, step, weights and state
    outputs: the loss, and the next value of every weight and of all state

Between the gradient g of the loss and the optimizer stand, in this order,

1. penalties: g + l1 sign(w) + l2 w;
2. masks: g = 0 where a weight is to stay what it is (zeros of a pruned model);
3. clipping by value: g = min(max(g, -v), v);
4. clipping by global norm: g = g min(1, c / (|g| + 1e-6)), |g| over all weights together
   (Pascanu, Mikolov, Bengio, ICML 2013, arXiv:1211.5063; the constant is PyTorch's).

After the update, channels are shrunk as wholes where a group lasso is asked for (see `lasso`).

A masked weight that is zero stays so under every optimizer: neither decay nor state moves it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import Loss, Ops, Tensor, gradient
from onnxprune.errors import OptionError
from onnxprune.graph import Weight
from onnxprune.train.lasso import Group, shrunk
from onnxprune.train.lift import Arrays, lift, unused_prefix
from onnxprune.train.optimizers import Optimizer, Scalars

__all__ = ["Step", "StepOptions", "training_step"]

LEFT = 0.9
"""How much of a running statistic a batch leaves."""


@dataclass(frozen=True)
class StepOptions:
    """What a step does to gradients and weights beside the optimizer.

    Attributes:
        clip_norm: Largest global norm of the gradients; None does not clip.
        clip_value: Largest absolute value of a gradient's element; None does not clip.
        l1: Weight of the sum of |w| in the loss.
        l2: Weight of half the sum of w^2 in the loss.
        ema: Decay of the exponential moving average of the weights (Polyak and Juditsky 1992); None
            keeps none.
        group_lasso: Strength of the group lasso over Dims (see `lasso`).
    """

    clip_norm: float | None = None
    clip_value: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    ema: float | None = None
    group_lasso: float = 0.0

    def __post_init__(self) -> None:
        """Raises OptionError where a number makes no sense."""
        for name, limit in (("clip-norm", self.clip_norm), ("clip-value", self.clip_value)):
            if limit is not None and not 0 < limit < float("inf"):
                raise OptionError(f"{name} must be a finite number above 0, not {limit}")
        for name, weight in (("l1", self.l1), ("l2", self.l2), ("group-lasso", self.group_lasso)):
            if not 0 <= weight < float("inf"):
                raise OptionError(f"{name} must be a finite number of at least 0, not {weight}")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise OptionError(f"ema must be at least 0 and below 1, not {self.ema}")
        if self.ema is not None and self.group_lasso:
            raise OptionError("an average of weights has no zeros: group lasso goes without ema")


@dataclass(frozen=True)
class Step:
    """A training step and how to start it.

    Attributes:
        model: The graph.
        weights: Names of the trained weights, which are inputs.
        averages: Weight name to input name of its moving average; empty without EMA.
        start: Every carried input (weights, their state, averages) and its first value.
        carried: Carried input to the output that holds its next value.
        means: Values that are means over the samples of the batch: the loss, its gradients, statistics of the batch.
            Nothing behind them sees a sample.
        loss: Name of the output that holds the loss, penalties included.
        rate: Name of the input that takes the learning rate, a scalar.
        step: Name of the input that takes the number of the update, from 1, an int64 scalar.
        prefix: What names of state start with, and those of nothing else.
    """

    model: ir.Model
    weights: tuple[str, ...]
    averages: Mapping[str, str]
    start: Arrays
    carried: Mapping[str, str]
    means: tuple[str, ...]
    loss: str
    rate: str
    step: str
    prefix: str

    @property
    def alone(self) -> bool:
        """Whether the step takes no statistics of a batch, which make one sample's values depend on the others."""
        return len(self.means) == 1 + len(self.weights)


@dataclass
class _Carried:
    """Inputs with a next value, as they are added to the graph."""

    op: Ops
    start: Arrays = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, start: np.ndarray) -> Tensor:
        tensor = _input(self.op, name, ir.DataType.from_numpy(start.dtype), start.shape)
        self.start[name] = start
        return tensor

    def close(self, name: str, following: Tensor) -> None:
        output = following.value
        if output.producer() is None or output.is_graph_output():
            output = self.op.Identity(following).value
        output.shape = ir.Shape(self.start[name].shape)
        self.op.graph.outputs.append(output)
        self.outputs[name] = output.name or ""


def training_step(
    model: ir.Model,
    loss: Loss,
    optimizer: Optimizer,
    trained: Sequence[Weight],
    *,
    feeds: Mapping[str, np.ndarray],
    options: StepOptions | None = None,
    masks: Mapping[str, np.ndarray] | None = None,
    decayed: Collection[str] | None = None,
    running: Mapping[str, str] | None = None,
    scales: Mapping[str, np.ndarray] | None = None,
    groups: Sequence[Group] = (),
) -> Step:
    """Compiles a model into the graph of one training step.

    Args:
        model: A model without local functions; left as it is.
        loss: What to make small.
        optimizer: How.
        trained: The weights to change, of the model's main graph.
        feeds: A batch of the model's inputs, to learn shapes from.
        options: Clipping, penalties, averaging.
        masks: Weight name to boolean array in its shape: False stays what it is.
        decayed: Names of the weights that weight decay and penalties apply to; None: all.
        running: Statistics that are averaged over the batches, beside the weights: name of a constant to the name
            of the value that holds the batch's.
        scales: Weight name to what its learning rate is multiplied by, of a shape that broadcasts.
        groups: Channels that the group lasso of the options shrinks after each update.

    Raises:
        NoGradientError: An op between a weight and the loss has no rule.
        ModelError: The model does not run.
    """
    options, masks, running = options or StepOptions(), masks or {}, running or {}
    lifted, arrays = lift(model, [*trained, *_constants(model, running)])
    names = [weight.name for weight in trained]
    step_model = gradient(lifted, loss, names, feeds={**feeds, **arrays})
    graph = step_model.graph
    op = Ops(graph, unused_prefix(graph, "train/"))
    values = {v.name or "": v for v in [*graph.inputs, *(o for n in graph for o in n.outputs)]}
    total, *gradients = (Tensor(value, op) for value in graph.outputs)
    graph.outputs.clear()
    sources = [values[source] for source in running.values()]
    for name, statistic in zip(running, sources, strict=True):
        statistic.shape = ir.Shape(arrays[name].shape)
    means = [total.value, *(slope.value for slope in gradients), *sources]
    weights = [Tensor(values[name], op) for name in names]
    decays = [decayed is None or name in decayed for name in names]
    total, gradients = _penalised(op, options, total, weights, gradients, decays)
    gradients = [
        _masked(op, found, masks.get(name)) for name, found in zip(names, gradients, strict=True)
    ]
    gradients = _clipped(op, options, gradients)

    rate = _input(op, f"{op.prefix}rate", ir.DataType.FLOAT, ())
    count = _input(op, f"{op.prefix}step", ir.DataType.INT64, ())
    result = op.Identity(op.cast(total, ir.DataType.FLOAT))
    graph.outputs.append(result.value)
    carried = _Carried(op, {name: arrays[name] for name in (*names, *running)})
    scalars: dict[ir.DataType | str, Scalars] = {}
    moved: dict[str, Tensor] = {}
    for name, weight, slope, decay in zip(names, weights, gradients, decays, strict=True):
        key = weight.dtype if scales is None else name
        if key not in scalars:
            own = op.cast(rate, weight.dtype)
            own = own if scales is None else own * op.constant(scales[name], weight.dtype)
            scalars[key] = optimizer.scalars(op, own, count)
        zeros = np.zeros_like(arrays[name])
        slots = [f"{op.prefix}{slot}/{name}" for slot in optimizer.slots]
        state = [carried.add(slot, zeros) for slot in slots]
        after, following = optimizer.update(op, weight, slope, state, scalars[key], decays=decay)
        after.value.shape = weight.value.shape
        moved[name] = after
        for slot, new in zip(slots, following, strict=True):
            carried.close(slot, new)
    if groups:
        moved = shrunk(op, groups, moved, rate * options.group_lasso)
    averages = {}
    for name, after in moved.items():
        carried.close(name, after)
        if options.ema is not None:
            averages[name] = f"{op.prefix}average/{name}"
            average = carried.add(averages[name], arrays[name])
            carried.close(averages[name], average * options.ema + after * (1.0 - options.ema))
    for name, source in running.items():
        carried.close(
            name, Tensor(values[name], op) * LEFT + Tensor(values[source], op) * (1 - LEFT)
        )
    return Step(
        step_model,
        tuple(names),
        averages,
        carried.start,
        carried.outputs,
        tuple(mean.name or "" for mean in means),
        result.value.name or "",
        rate.value.name or "",
        count.value.name or "",
        op.prefix,
    )


def _constants(model: ir.Model, running: Mapping[str, str]) -> list[Weight]:
    graph = model.graph
    return [Weight(name, graph.initializers[name], "initializer", graph) for name in running]


def _input(op: Ops, name: str, dtype: ir.DataType, shape: tuple[int, ...]) -> Tensor:
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape))
    op.graph.inputs.append(value)
    return Tensor(value, op)


def _penalised(
    op: Ops,
    options: StepOptions,
    total: Tensor,
    weights: Sequence[Tensor],
    gradients: Sequence[Tensor],
    decays: Sequence[bool],
) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients with L1 and L2."""
    found = []
    for weight, slope, decay in zip(weights, gradients, decays, strict=True):
        slope = op.cast(slope, weight.dtype)
        if decay and options.l1:
            size = op.ReduceSum(op.Abs(weight), keepdims=0) * options.l1
            total = total + op.cast(size, total.dtype)
            slope = slope + op.Sign(weight) * options.l1
        if decay and options.l2:
            size = op.ReduceSumSquare(weight, keepdims=0) * (options.l2 / 2)
            total = total + op.cast(size, total.dtype)
            slope = slope + weight * options.l2
        found.append(slope)
    return total, found


def _masked(op: Ops, gradient: Tensor, mask: np.ndarray | None) -> Tensor:
    if mask is None:
        return gradient
    return op.where(op.constant(np.asarray(mask, bool)), gradient, 0.0)


def _clipped(op: Ops, options: StepOptions, gradients: Sequence[Tensor]) -> list[Tensor]:
    found = list(gradients)
    if options.clip_value is not None:
        found = [op.Clip(g, -options.clip_value, options.clip_value) for g in found]
    if options.clip_norm is not None:
        squares = [op.cast(op.ReduceSumSquare(g, keepdims=0), ir.DataType.FLOAT) for g in found]
        norm = op.Sqrt(op.Sum(*squares))
        factor = op.Min(options.clip_norm / (norm + 1e-6), 1.0)
        found = [g * op.cast(factor, g.dtype) for g in found]
    return found
