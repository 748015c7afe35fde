"""Training a model: the parts of this package put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import DataError, ModelError, ValidationError
from onnxprune.graph import Weight, clone, inline, replace, weights
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.sessions import session
from onnxprune.train.batchnorm import Live, live
from onnxprune.train.lift import Arrays, evaluation, lift
from onnxprune.train.loop import Epoch, Evaluated, Trained, train
from onnxprune.train.objective import Objective, Source, objective, rows_of
from onnxprune.train.options import TrainOptions
from onnxprune.train.runner import Runner, evaluate
from onnxprune.train.schedules import schedule
from onnxprune.train.step import training_step
from onnxprune.train.trainable import trainable, untie
from onnxprune.validate.accuracy import accuracy_of

__all__ = ["Finetuned", "accepted", "finetune", "fit", "zero_masks"]

LEAST_LIVE = 8
"""Samples that a batch must have for its statistics to mean anything."""


@dataclass(frozen=True)
class Finetuned:
    """A trained model and how it came about.

    Attributes:
        model: A copy of the model with the best weights seen.
        trained: What the loop did.
        objective: What was made small, in words.
        weights: How many tensors were trained.
    """

    model: ir.Model
    trained: Trained
    objective: str
    weights: int


def finetune(
    model: ir.Model,
    data: Dataset,
    teacher: ir.Model | None = None,
    *,
    progress: Progress | None = None,
    **options: Any,
) -> ir.Model:
    """The model, trained; the samples held aside decide which of its states is the best.

    Args:
        model: The model to train; left as it is.
        data: Samples, with labels or without.
        teacher: The original model, whose outputs are to be followed; needed without labels.
        progress: Where it is shown.
        **options: Fields of `TrainOptions` by name.

    Raises:
        OptionError: An option makes no sense.
        DataError: No labels and no teacher, or labels that go with no output.
        NoGradientError: An op between a weight and the outputs has no gradient.
        ModelError: onnxruntime does not run the model.
    """
    return fit(model, data, teacher, TrainOptions(**options), progress=progress).model


def fit(
    model: ir.Model,
    data: Dataset,
    teacher: ir.Model | None,
    options: TrainOptions,
    *,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Finetuned:
    """`finetune` with options made before, and all that is known about the run."""
    model = untie(inline(model))
    _check_teacher(model, teacher)
    goal = objective(
        model,
        data,
        teacher,
        temperature=options.temperature,
        smoothing=options.smoothing,
        alpha=options.alpha,
    )
    chosen = trainable(model, options.include, options.exclude)
    seen, aside = hold_aside(data, options.held_aside, options.seed)
    said = None
    if teacher is not None and goal.teacher:
        said = session(teacher, options.providers, threads=options.threads)
    batch = options.batch_size
    source, test = Source(seen, goal, said, batch), Source(aside, goal, said, batch)
    example = source.feed(rows_of(seen, min(batch, 2), np.arange(len(seen)), whole=False)[0])
    feeds = {name: example[name] for name in data.inputs}
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
    )
    runner = Runner(step, options.providers, options.threads)
    carried = [w for w in weights(model) if w.graph is model.graph and w.name in step.start]
    lifted, arrays = lift(model, carried)
    forward = session(
        evaluation(lifted, goal.loss, {**feeds, **arrays}),
        options.providers,
        threads=options.threads,
    )
    names = [value.name or "" for value in model.graph.outputs]
    trained = train(
        runner,
        source,
        lambda now: _evaluate(now, forward, test, goal, names, batch),
        epochs=options.epochs,
        batch=batch,
        rate=options.rate,
        schedule=_schedule(options, seen),
        seed=options.seed,
        progress=progress,
        on_epoch=on_epoch,
    )
    return Finetuned(_with_weights(model, trained), trained, goal.words, len(chosen))


def accepted(done: Finetuned) -> Finetuned:
    """The result, if there is one: a run that ended early before any improvement has none.

    Raises:
        ValidationError: It diverged.
        KeyboardInterrupt: The user ended it.
    """
    if done.trained.best_epoch == 0 and done.trained.interrupted:
        raise KeyboardInterrupt
    if done.trained.best_epoch == 0 and done.trained.diverged:
        raise ValidationError(f"{done.trained.stopped}; nothing is written")
    return done


def _check_teacher(model: ir.Model, teacher: ir.Model | None) -> None:
    if teacher is None:
        return
    for kind, mine, theirs in (
        ("input", teacher.graph.inputs, model.graph.inputs),
        ("output", model.graph.outputs, teacher.graph.outputs),
    ):
        names = {value.name for value in theirs}
        for value in mine:
            if value.name not in names and not value.is_initializer():
                raise DataError(
                    f"the teacher and the model are no pair: only one of them has the {kind} {value.name!r}"
                )


def zero_masks(chosen: Sequence[Weight]) -> dict[str, np.ndarray]:
    """Where a pruned weight of two and more axes is not zero; none for a weight that is all zero."""
    masks = {}
    for weight in chosen:
        if len(weight.shape) > 1:
            kept = weight.array() != 0
            if kept.any() and not kept.all():
                masks[weight.name] = kept
    return masks


def _mode(model: ir.Model, options: TrainOptions, data: Dataset, feeds: Arrays) -> Live:
    """The model with live BatchNormalizations where they are wanted, or possible if that is left open."""
    size = 1 if data.stacked else data.fixed_batch or min(options.batch_size, len(data))
    if options.batchnorm == "frozen" or (options.batchnorm == "auto" and size < LEAST_LIVE):
        return Live(model, {})
    try:
        return live(model, feeds=feeds)
    except ModelError:
        if options.batchnorm == "live":
            raise
        return Live(model, {})


def _schedule(options: TrainOptions, data: Dataset) -> Any:
    each = len(rows_of(data, options.batch_size, np.arange(len(data)), whole=True))
    warmup = 0 if options.schedule == "one-cycle" else round(options.warmup * each * options.epochs)
    return schedule(options.schedule, warmup)


def _evaluate(
    runner: Runner,
    forward: ort.InferenceSession,
    test: Source,
    goal: Objective,
    names: Sequence[str],
    batch: int,
) -> Evaluated:
    """Loss and, with labels, accuracy of the state that a runner is in."""
    step, data = runner.step, test.data
    own = {name: name for name in step.carried if not name.startswith(step.prefix)}
    state = runner.values({**own, **step.averages})
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


def _with_weights(model: ir.Model, trained: Trained) -> ir.Model:
    copy = clone(model)
    for weight in weights(copy):
        if weight.graph is copy.graph and weight.name in trained.weights:
            replace(weight, trained.weights[weight.name])
    return copy
