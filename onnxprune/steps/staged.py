"""To a target in stages, each the best of a few: what a prediction cannot tell is tried.

What a channel is worth is predicted where the model stands, and the further a cut goes the less that holds. So a large
cut is made of some smaller ones, each predicted anew on the model that the one before has left, re-fitted. And at every
stage the widths are chosen in a few ways (by trust in the measured sensitivities, see `onnxprune.plan.second_order`);
all are re-fitted, and the one goes on whose outputs are nearest to the original's on samples that neither chose nor
fitted it. The last is re-fitted once more, on all samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.graph import clone
from onnxprune.options import PruneOptions
from onnxprune.progress import Prefixed, Progress
from onnxprune.recover import Refitted, fit
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.sessions import run, session
from onnxprune.scores.distance import Reference
from onnxprune.steps.line import Channels, ChannelsKept, Stage
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.training import training_options
from onnxprune.train.recovery import seen

__all__ = ["is_staged", "shares", "staged"]

TRUSTS = (0.0, 0.5, 1.0)
STAGE = 0.82
"""What a stage leaves of a model, about."""
MOST_STAGES = 3
ASIDE = 0.25
FEWEST = 16
"""With fewer samples than this, what was fitted on them is judged on them."""
BATCH = 8


def is_staged(options: PruneOptions) -> bool:
    """Whether widths are free, priced by `obs`, and repaired."""
    target = options.target
    return (
        options.criterion == "obs"
        and target is not None
        and not options.limits_drop
        and options.recover in ("lstsq", "finetune")
    )


def shares(target: float) -> tuple[float, ...]:
    """What is left of the original after each stage: as much of the model before in each."""
    count = min(MOST_STAGES, max(1, round(math.log(target) / math.log(STAGE))))
    return tuple(target ** (k / count) for k in range(1, count + 1))


def staged(
    model: ir.Model, data: Dataset, options: PruneOptions, progress: Progress, clock: Clock
) -> Outcome:
    """Prunes to `options.target`.

    Args:
        model: The original, without local functions.
        data: Samples, without labels.
        options: What to prune, and how far.
        progress: Where long work is shown.
        clock: Adds up the seconds of what is done.

    Raises:
        NothingToPruneError: Nothing can be cut, or the target is out of reach.
    """
    assert options.target is not None
    every = data if options.recover == "lstsq" else seen(data, training_options(options))
    used, aside = hold_aside(every, ASIDE, options.seed) if len(every) >= FEWEST else (every, every)
    line = Channels(model, every, options)
    outputs = _Outputs(model, aside, options)
    stage, notes = line.start(), list[str]()
    stages = shares(options.target.value)
    for number, share in enumerate(stages, 1):
        shown = Prefixed(progress, f"stage {number} of {len(stages)}: ")
        tried = line.alternatives(stage, 1 - share, used, shown, clock, TRUSTS)
        with clock.step("recover"):
            fits = [_fitted(line, each, used, options, shown, aside) for each in tried]
        errors = [outputs.moved(each.model) for each, _ in fits]
        best = min(range(len(tried)), key=errors.__getitem__)
        (stage, refitted), raw = fits[best], tried[best]
        notes += [*raw.notes, _note(options.target.kind, share, errors, best)]
    if used is not every:
        known = [each.shrinkage * len(used) / len(every) for each in refitted]
        with clock.step("recover"):
            stage, refitted = _fitted(line, raw, every, options, progress, shrinkages=known)
    notes.append(f"{len(refitted)} weights were re-fitted on {len(every)} samples")
    done = line.outcome(stage)
    return replace(done, notes=(*done.notes, *dict.fromkeys(notes)))


def _fitted(
    line: Channels,
    stage: Stage[ChannelsKept],
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
    aside: Dataset | None = None,
    shrinkages: Sequence[float] | None = None,
) -> tuple[Stage[ChannelsKept], list[Refitted]]:
    """The stage with a model of its own, re-fitted, and how."""
    model = clone(stage.model)
    done = fit(
        line.tracing,
        stage.gone,
        model,
        data,
        progress,
        options.providers,
        options.seed,
        None if aside is data else aside,
        shrinkages,
    )
    return Stage(model, stage.gone), done


class _Outputs:
    """What the original says to the samples held aside."""

    def __init__(self, original: ir.Model, data: Dataset, options: PruneOptions) -> None:
        self.data, self.providers = data, options.providers
        self.reference = Reference(self._of(original))

    def moved(self, model: ir.Model) -> float:
        """How far a model's outputs are from those."""
        return self.reference.moved(self._of(model))

    def _of(self, model: ir.Model) -> Iterator[list[np.ndarray]]:
        made = session(model, self.providers)
        for feed in self.data.batches(BATCH):
            every = [array for array in run(made, feed) if isinstance(array, np.ndarray)]
            yield [array for array in every if array.dtype.kind == "f" and array.ndim]


def _note(kind: str, share: float, errors: Sequence[float], best: int) -> str:
    tried = ", ".join(
        f"{trust:g}: {error:.3g}" for trust, error in zip(TRUSTS, errors, strict=False)
    )
    return (
        f"at {share:.3f} of the {kind} the outputs moved, by trust in measured sensitivities, {tried};"
        f" {TRUSTS[best]:g} was taken"
    )
