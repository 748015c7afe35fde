"""One training: a model, what to make small, samples to train on and samples to compare states on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.graph import Weight, clone, replace, weights
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.train.batchnorm import Live, has_batchnorm, live
from onnxprune.train.blocked import fed_session
from onnxprune.train.lasso import Group, groups_of
from onnxprune.train.lift import Arrays, evaluation, lift
from onnxprune.train.loop import Epoch, Evaluated, Trained, train
from onnxprune.train.objective import Objective, Source, rows_of
from onnxprune.train.options import TrainOptions
from onnxprune.train.runner import Runner, evaluate
from onnxprune.train.schedules import schedule
from onnxprune.train.step import training_step
from onnxprune.validation.accuracy import accuracy_of

__all__ = [
    "BlockFit",
    "Finetuned",
    "fit_to",
    "is_live",
    "take_over",
    "with_weights",
    "zero_masks",
]

LOWERINGS = 4
"""How often a rate that nobody chose is lowered where it does harm."""
TRIAL = 0.1
"""Share of the epochs by whose end a rate relative to the weights must have helped: it is for few samples and a model
that is near its teacher, and what a higher one undoes comes back on the samples that it is trained on alone."""
SAME = 1e-3
"""Relative difference of losses that are the same, to rounding."""
LEAST_LIVE = 8
"""Samples that a batch must have for its statistics to mean anything."""


@dataclass(frozen=True)
class Finetuned:
    """A trained model and how it came about.

    Attributes:
        model: A copy of the model with the best weights seen.
        trained: What the loop did.
        options: How, with what was left open decided.
        objective: What was made small, in words.
        weights: How many tensors were trained.
        blocks: What became of each block, where they were trained one by one before.
    """

    model: ir.Model
    trained: Trained
    options: TrainOptions
    objective: str
    weights: int
    blocks: tuple[BlockFit, ...] = ()


@dataclass(frozen=True)
class BlockFit:
    """What became of one block of a model.

    Attributes:
        end: Name of the value that it was trained to give, of the last block its first output.
        before: Loss before, on samples held aside: squared error relative to the target's variance, at the
            last block the distance of the outputs.
        after: The same after.
    """

    end: str
    before: float
    after: float


def fit_to(
    model: ir.Model,
    chosen: Sequence[Weight],
    goal: Objective,
    source: Source,
    test: Source,
    options: TrainOptions,
    *,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    label: str = "",
    rate: float | None = None,
) -> Finetuned:
    """`fit` with everything chosen.

    Args:
        model: A model without local functions.
        chosen: Its weights to train.
        goal: What to make small.
        source: Feeds to train on.
        test: Feeds that decide which state is the best.
        options: How.
        progress: Where it is shown.
        on_epoch: Called at the end of each epoch.
        label: What is trained, in front of what is shown.
        rate: The learning rate where the options leave it open, if not the one that they then have.
    """
    batch, seen = options.batch, source.data
    example = source.feed(rows_of(seen, min(batch, 2), np.arange(len(seen)), whole=False)[0])
    feeds = {name: example[name] for name in seen.inputs}
    mode = _mode(model, options, seen, feeds)
    step = training_step(
        mode.model,
        goal.loss,
        options.method,
        chosen,
        feeds=feeds,
        options=options.step,
        masks=zero_masks(chosen) if options.keep_zeros else {},
        decayed={weight.name for weight in chosen if len(weight.shape) > 1},
        running=mode.running,
        groups=_groups(mode.model, seen, chosen) if options.group_lasso else (),
        scales=scales_of(chosen) if options.scaled else None,
    )
    runner = Runner(step, options.providers, options.threads)
    carried = [w for w in weights(model) if w.graph is model.graph and w.name in step.start]
    lifted, arrays = lift(model, carried)
    forward = fed_session(
        evaluation(lifted, goal.loss, {**feeds, **arrays}), options.providers, options.threads
    )
    runner.divides = runner.divides and _apart(runner, forward, test, batch)
    names = [value.name or "" for value in model.graph.outputs]
    trained = train(
        runner,
        source,
        lambda now: _evaluate(now, forward, test, goal, names, batch),
        epochs=options.passes(),
        batch=batch,
        rate=options.rate if rate is None or options.lr is not None else rate,
        schedule=_schedule(options, seen),
        seed=options.seed,
        progress=progress,
        on_epoch=on_epoch,
        label=label,
        keep_last=options.group_lasso > 0,
        lowerings=LOWERINGS if options.lr is None and not options.group_lasso else 0,
        trial=math.ceil(TRIAL * options.passes()) if options.scaled else 0,
    )
    return Finetuned(with_weights(model, trained), trained, options, goal.words, len(chosen))


def zero_masks(chosen: Sequence[Weight]) -> dict[str, np.ndarray]:
    """Where a pruned weight of two and more axes is not zero; none for a weight that is all zero."""
    masks = {}
    for weight in chosen:
        if len(weight.shape) > 1:
            kept = weight.array() != 0
            if kept.any() and not kept.all():
                masks[weight.name] = kept
    return masks


def scales_of(chosen: Sequence[Weight]) -> dict[str, np.ndarray]:
    """The size of each weight's numbers, their root mean square: of a kernel by output channel."""
    found = {}
    for weight in chosen:
        squares = weight.array().astype(np.float64) ** 2
        axes = tuple(range(1, squares.ndim)) if squares.ndim > 2 else None
        size = np.sqrt(squares.mean(axes, keepdims=axes is not None))
        mean = float(np.sqrt(squares.mean())) or 1.0
        found[weight.name] = np.maximum(size, 0.1 * mean).astype(np.float32)
    return found


def is_live(model: ir.Model, options: TrainOptions, data: Dataset) -> bool:
    """Whether BatchNormalizations are to have the statistics of each batch, and there are any."""
    size = 1 if data.stacked else data.fixed_batch or min(options.batch, len(data))
    few = options.batchnorm == "auto" and size < LEAST_LIVE
    return options.batchnorm != "frozen" and not few and has_batchnorm(model)


def _mode(model: ir.Model, options: TrainOptions, data: Dataset, feeds: Arrays) -> Live:
    """The model with live BatchNormalizations where they are wanted, or possible if that is left open."""
    if not is_live(model, options, data):
        return Live(model, {})
    try:
        return live(model, feeds=feeds)
    except ModelError:
        if options.batchnorm == "live":
            raise
        return Live(model, {})


def _groups(model: ir.Model, data: Dataset, chosen: Sequence[Weight]) -> list[Group]:
    return groups_of(model, data.shapes_of_one, {weight.name for weight in chosen})


def _schedule(options: TrainOptions, data: Dataset) -> Any:
    each = len(rows_of(data, options.batch, np.arange(len(data)), whole=True))
    warmup = (
        0 if options.schedule == "one-cycle" else round(options.warmup * each * options.passes())
    )
    return schedule(options.schedule, warmup)


def _apart(runner: Runner, forward: ort.InferenceSession, test: Source, batch: int) -> bool:
    """Whether the loss of a batch is the mean of those of its halves, so that its samples do not see each other."""
    count = min(batch, len(test.data))
    if test.data.stacked or count < 2:
        return False
    state, feed, half = _state(runner), test.feed(np.arange(count)), count // 2
    whole, first, second = (
        float(evaluate(forward, state, {name: array[part] for name, array in feed.items()})[-1])
        for part in (slice(None), slice(half), slice(half, None))
    )
    return math.isclose(whole, (half * first + (count - half) * second) / count, rel_tol=SAME)


def _state(runner: Runner) -> dict[str, ort.OrtValue]:
    """The weights that a runner has come to, averaged where averages are kept."""
    step = runner.step
    own = {name: name for name in step.carried if not name.startswith(step.prefix)}
    return runner.values({**own, **step.averages})


def _evaluate(
    runner: Runner,
    forward: ort.InferenceSession,
    test: Source,
    goal: Objective,
    names: Sequence[str],
    batch: int,
) -> Evaluated:
    """Loss and, with labels, accuracy of the state that a runner is in."""
    state, data = _state(runner), test.data
    losses, results, counts = [], [], []
    for rows in data.batch_rows(batch):
        places = np.arange(rows.start, rows.stop)
        *outputs, each = evaluate(forward, state, test.feed(places))
        losses.append(float(each))
        counts.append(len(places))
        if data.labels is not None:
            results.append(outputs)
    loss = float(np.average(losses, weights=counts))
    if goal.labels is None or not np.isfinite(loss):
        return Evaluated(loss, samples=len(data))
    found = accuracy_of(names, results, data, batch)
    return Evaluated(loss, found.metric, found.value, len(data))


def with_weights(model: ir.Model, trained: Trained) -> ir.Model:
    """A copy of a model with the weights that a training has found."""
    copy = clone(model)
    for weight in weights(copy):
        if weight.graph is copy.graph and weight.name in trained.weights:
            replace(weight, trained.weights[weight.name])
    return copy


def take_over(model: ir.Model, source: ir.Model) -> None:
    """Gives a model, in place, the float constants that those of the same names are in another one."""
    theirs = {w.name: w for w in weights(source) if w.graph is source.graph}
    for weight in weights(model):
        other = theirs.get(weight.name) if weight.graph is model.graph else None
        if other is not None and weight.dtype.is_floating_point() and other.shape == weight.shape:
            replace(weight, np.array(other.array()))
