"""Training a model: the parts of this package put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.errors import DataError, ValidationError
from onnxprune.graph import clone, inline
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.sessions import run, session
from onnxprune.train.augment import WAYS, copies, is_images
from onnxprune.train.batch import opened
from onnxprune.train.blocks import Kept
from onnxprune.train.blockwise import distil_blocks
from onnxprune.train.features import with_features
from onnxprune.train.fit import (
    LEAST_LIVE,
    BlockFit,
    Finetuned,
    fit_to,
    is_live,
    take_over,
    with_weights,
)
from onnxprune.train.harmless import harmless
from onnxprune.train.loop import Epoch
from onnxprune.train.objective import Source, objective
from onnxprune.train.options import TrainOptions
from onnxprune.train.trainable import trainable, untie
from onnxprune.train.unfold import Unfolded, unfold

__all__ = ["accepted", "finetune", "fit", "split"]

MANY = 1000
"""Samples from which on statistics of batches do more good than harm."""
MOST_ASIDE = 1000
"""Samples that are held aside at most: of more there are better ones to train on."""
ASIDE = 3
"""How many times over images are held aside, moved about in different ways, where no label tells what is right."""


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
    kept: Kept | None = None,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Finetuned:
    """`finetune` with options made before, and all that is known about the run.

    Block by block first, where that is wanted, then end to end. A model that fixes its batch is trained as one that
    takes any, if there is one.

    Args:
        model: The model to train; left as it is.
        data: Samples, with labels or without.
        teacher: The original model.
        options: How.
        kept: Where channels were removed, which are left (see `distil_blocks`).
        progress: Where it is shown.
        on_epoch: Called at the end of each epoch.
    """
    model = given = untie(inline(model))
    _check_teacher(model, teacher)
    free, data = opened([model, *([inline(teacher)] if teacher is not None else [])], data)
    if free is not None:
        model, teacher = free[0], free[-1] if teacher is not None else None
    goal = objective(
        model,
        data,
        teacher,
        temperature=options.softening(data.labels is not None),
        smoothing=options.smoothing,
        alpha=options.alpha,
    )
    if teacher is not None and goal.teacher:
        _check_outputs(model, teacher, data, list(goal.teacher))
    seen, aside = split(data, options)
    options = replace(options, augment=_ways(seen, aside, model, teacher, options))
    if data.labels is None and options.augment:
        random = np.random.default_rng([options.seed, 7])
        aside = replace(aside, inputs=copies(aside.inputs, ASIDE, options.augment, random))
    told = teacher
    if options.features and teacher is not None:
        goal, told = with_features(goal, model, teacher, seen, options.features, kept)
    blocks: list[BlockFit] = []
    if teacher is not None and options.by_blocks(data.labels is not None):
        model, blocks = distil_blocks(
            model, teacher, seen, aside, options, kept=kept, progress=progress
        )
        given = clone(given)
        take_over(given, model)
    said = None
    if told is not None and goal.teacher:
        said = session(told, options.providers, threads=options.threads)
    put = Unfolded(model, trainable(model, options.include, options.exclude), ())
    if _unfolds(seen, options):
        put = unfold(model, put.chosen, seen, options.providers, options.seed)
    options = options.settled(data.labels is not None, len(seen), is_live(put.model, options, seen))
    batch = options.batch
    found = fit_to(
        put.model,
        put.chosen,
        goal,
        Source(seen, goal, said, batch, ways=options.augment or (), seed=options.seed),
        Source(aside, goal, said, batch),
        options,
        progress=progress,
        on_epoch=on_epoch,
    )
    trained = put.folded(found.trained)
    moved = f" on images augmented by {', '.join(options.augment)}" if options.augment else ""
    return replace(
        found,
        trained=trained,
        model=with_weights(given, trained),
        options=options,
        objective=f"{found.objective}{moved}",
        blocks=tuple(blocks),
    )


def split(data: Dataset, options: TrainOptions) -> tuple[Dataset, Dataset]:
    """The samples to train on, and those to compare states on."""
    return hold_aside(data, min(options.held_aside, MOST_ASIDE / len(data)), options.seed)


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


def _ways(
    data: Dataset, aside: Dataset, model: ir.Model, teacher: ir.Model | None, options: TrainOptions
) -> tuple[str, ...]:
    """How images are moved about: as the options say, else in every way that leaves right what is said of them.

    A teacher alone says of every image what is right. A label stays right as far as the model, or its original, is as
    often right about images that are moved so.
    """
    if options.augment is not None:
        return options.augment
    if data.stacked or not any(map(is_images, data.inputs.values())):
        return ()
    if data.labels is None:
        return WAYS if teacher is not None else ()
    return harmless(teacher or model, aside, options.providers, options.seed)


def _unfolds(data: Dataset, options: TrainOptions) -> bool:
    """Whether normalisation that was folded away is put back: if not said, where there are samples enough for it."""
    wanted = options.unfold if options.unfold is not None else len(data) >= MANY
    fits = options.batch >= LEAST_LIVE and data.fixed_batch is None and not data.stacked
    return wanted and fits and options.batchnorm != "frozen" and not options.group_lasso


def _check_outputs(model: ir.Model, teacher: ir.Model, data: Dataset, names: Sequence[str]) -> None:
    """Whether a teacher's outputs are as large as those that are to follow them."""
    feed = data.feed(slice(0, data.fixed_batch or 1))
    ours, theirs = (run(session(each), feed, names) for each in (model, teacher))
    for name, mine, other in zip(names, ours, theirs, strict=True):
        if mine.shape != other.shape:
            raise DataError(
                f"the teacher and the model are no pair: the output {name!r} is {other.shape} of one of them,"
                f" {mine.shape} of the other"
            )


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
