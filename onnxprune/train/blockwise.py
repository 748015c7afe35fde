"""Block by block: each part of a pruned model learns what the original's part gave, before the whole is trained.

In order, each block (see `blocks`) is trained on what reaches it in the *pruned* model, all blocks before it trained
already, to give what the original has at its end: the squared error relative to the target's variance, at the last
block the distance of the outputs. So a block also takes back what those before it got wrong. A step runs one block
only, every element of its output says something, and few samples go far: 200 images are 200 x 7 x 7 x 320 numbers at
the end of MobileNetV2, and a thousand each at its outputs.

Where channels of such a value were removed, the original's are compared at those that are left.

Sources: Li et al., "BRECQ", ICLR 2021, arXiv:2102.05426 (block reconstruction from few samples); Bai et al.,
"Few shot network compression via cross distillation", AAAI 2020, arXiv:1911.09450.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import SquaredError, Weighted
from onnxprune.errors import ModelError
from onnxprune.graph import clone, inline, weights
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train.augment import copies
from onnxprune.train.blocks import Block, Kept, blocks_of, comparable, extract, own_inputs
from onnxprune.train.fit import BlockFit, Finetuned, fit_to, take_over
from onnxprune.train.objective import TEACHER, Objective, Source, objective
from onnxprune.train.options import TrainOptions
from onnxprune.train.trainable import trainable, untie

__all__ = ["distil_blocks"]

MEMORY = 1 << 30
"""Bytes that the samples' values at one cut point may take; of more samples only as many are used as fit."""
EPOCHS, SIZE, RATE = 40, 8, 1e-2
"""How often each block sees the samples where nobody says, samples a step, learning rate relative to the weights."""
COPIES = 5
"""How many times over a block sees each image, moved about in different ways, in as many fewer epochs."""
EQUAL = 1e-7
"""A relative error that rounding leaves: such a block needs no training."""
BATCH = 16
"""Samples a run of a block."""

Arrays = dict[str, np.ndarray]


def distil_blocks(
    model: ir.Model,
    teacher: ir.Model,
    seen: Dataset,
    aside: Dataset,
    options: TrainOptions,
    *,
    kept: Kept | None = None,
    progress: Progress | None = None,
) -> tuple[ir.Model, list[BlockFit]]:
    """A model, trained block by block to follow the original.

    Args:
        model: The pruned model; left as it is.
        teacher: The original, whose values have the names of the model's.
        seen: Samples to train on; labels are not looked at.
        aside: Samples that decide which state of a block is the best.
        options: How; `block_epochs` says how often each block sees the samples.
        kept: Where channels were removed, which are left; other values are compared where shapes are equal.
        progress: Where it is shown.

    Returns:
        The trained copy, and what became of each block; none where the model has no cut points, or does not take
        any number of samples.

    Raises:
        KeyboardInterrupt: The user ended the training of a block.
    """
    model, teacher = clone(untie(inline(model))), own_inputs(inline(teacher))
    student = own_inputs(model)
    chosen = {w.name: len(w.shape) for w in trainable(student, options.include, options.exclude)}
    if seen.fixed_batch is not None or seen.stacked:
        return model, []
    known = comparable(student, teacher, seen, kept or {})
    blocks = blocks_of(student, chosen, known)
    if len(blocks) < 2:
        return model, []
    largest = max(known[name] for block in blocks[:-1] for name in block.gives)
    most = max(2, MEMORY // largest - len(aside))
    epochs = options.block_epochs or EPOCHS
    times = max(1, min(COPIES, most // len(seen), epochs)) if options.augment else 1
    random = np.random.default_rng([options.seed, 4])
    shown = copies(seen.take(most).inputs, times, options.augment or (), random)
    options = _of_blocks(options, -(-epochs // times))
    count = len(next(iter(shown.values())))
    inputs = {name: np.concatenate([shown[name], aside.inputs[name]]) for name in shown}
    ours = theirs = inputs
    done = []
    for place, block in enumerate(blocks, 1):
        own = extract(student, block.takes, block.gives, ours)
        original = extract(teacher, block.takes, block.gives, theirs)
        said = _outputs(original, theirs, options)
        targets = {name: _restricted(array, (kept or {}).get(name)) for name, array in said.items()}
        if not _same(_outputs(own, ours, options), targets):
            taken = {value.name or "": ours[value.name or ""] for value in own.graph.inputs}
            goal = _last(own, taken, original, options) if place == len(blocks) else _inner(targets)
            label = f"block {place} of {len(blocks)}, "
            found = _fit(own, block, taken, targets, goal, count, options, label, progress)
            if found.trained.interrupted:
                raise KeyboardInterrupt
            done.append(BlockFit(block.gives[0], found.trained.start.loss, found.trained.best.loss))
            own = found.model
            take_over(student, own)
        ours = {**inputs, **_outputs(own, ours, options)}
        theirs = {**inputs, **said}
    take_over(model, student)
    return model, done


def _of_blocks(options: TrainOptions, epochs: int) -> TrainOptions:
    """Small steps of few samples: there are few, and a weight that BatchNorm was folded into has any size."""
    return replace(
        options,
        epochs=epochs,
        batch_size=min(SIZE, options.batch),
        lr=None,
        optimizer="adamw",
        relative=True,
        weight_decay=0.0,
        ema=None,
        l1=0.0,
        l2=0.0,
        group_lasso=0.0,
    )


def _fit(
    own: ir.Model,
    block: Block,
    taken: Arrays,
    targets: Arrays,
    goal: Objective,
    count: int,
    options: TrainOptions,
    label: str,
    progress: Progress | None,
) -> Finetuned:
    """A block, trained on the first `count` samples; the others decide which state is the best."""
    known = {name: targets[name] for name in goal.teacher}
    seen, aside = (
        Source(Dataset(_rows(taken, part)), goal, known=_rows(known, part))
        for part in (slice(count), slice(count, None))
    )
    chosen = [w for w in weights(own) if w.graph is own.graph and w.name in block.weights]
    return fit_to(
        own, chosen, goal, seen, aside, options, progress=progress, label=label, rate=RATE
    )


def _inner(targets: Arrays) -> Objective:
    """The squared error relative to the target's variance."""
    ((name, target),) = targets.items()
    scale = 1.0 / max(float(np.var(target, dtype=np.float64)), 1e-30)
    error = SquaredError(name, target=f"{TEACHER}{name}")
    return Objective(Weighted(((scale, error),)), None, {name: f"{TEACHER}{name}"})


def _last(own: ir.Model, taken: Arrays, original: ir.Model, options: TrainOptions) -> Objective:
    """The distance of the outputs."""
    return objective(own, Dataset(taken), original, temperature=options.softening(labels=False))


def _same(ours: Arrays, targets: Arrays) -> bool:
    """Whether nothing is left to learn."""
    pairs = [(ours[name], target) for name, target in targets.items() if target.dtype.kind == "f"]
    return all(np.var(a - t) <= EQUAL * np.var(t) for a, t in pairs)


def _outputs(model: ir.Model, values: Arrays, options: TrainOptions) -> Arrays:
    """What a part of a model gives for all samples.

    Raises:
        ModelError: It does not give one row for each sample.
    """
    made = session(model, options.providers, threads=options.threads)
    names = [value.name or "" for value in model.graph.outputs]
    data = Dataset({value.name or "": values[value.name or ""] for value in model.graph.inputs})
    found: Arrays = {}
    for rows in data.batch_rows(BATCH):
        for name, array in zip(names, run(made, data.feed(rows)), strict=True):
            count = rows.stop - rows.start
            if len(array) != count:
                raise ModelError(f"{name!r} has {len(array)} rows for {count} samples")
            if name not in found:
                found[name] = np.empty((len(data), *array.shape[1:]), array.dtype)
            found[name][rows] = array
    return found


def _restricted(array: np.ndarray, kept: Sequence[np.ndarray] | None) -> np.ndarray:
    """The original's values at the places that are left; those of the samples are all."""
    for axis, places in enumerate(kept or ()):
        if axis and len(places) < array.shape[axis]:
            array = np.take(array, places, axis=axis)
    return array


def _rows(arrays: Arrays, places: slice) -> Arrays:
    return {name: array[places] for name, array in arrays.items()}
