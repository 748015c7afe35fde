"""The loop around the step: shuffled batches, a schedule, evaluation after each epoch, the best state kept.

The state before the first step counts as a candidate too, so training never gives back a model that is
worse, on the samples held aside, than the one it was given. What is not finite is no candidate.

A rate that is too high for a model that is nearly right already undoes it, at once or in the first epochs. Where the
user has not chosen it, such a training begins anew with a lower one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from onnxprune.errors import ModelError
from onnxprune.progress import Progress, Silent
from onnxprune.train.lift import Arrays
from onnxprune.train.objective import Source, rows_of
from onnxprune.train.prefetch import prefetched
from onnxprune.train.runner import Runner
from onnxprune.train.schedules import Schedule

__all__ = ["Epoch", "Evaluate", "Evaluated", "Trained", "train"]

EXPLODED = 1e4
"""A loss that has grown by this factor has diverged, even if it is finite still."""
HARM = 4.0
"""A first epoch that makes the loss grow by this factor, on the samples held aside, had too high a rate."""
LOWER = 4.0
"""By what the rate is divided then."""


@dataclass(frozen=True)
class Evaluated:
    """What a state is worth, on the samples held aside.

    Attributes:
        loss: The loss, penalties left out.
        metric: Name of the accuracy; empty without labels.
        accuracy: Higher is better; None without labels.
        samples: How many they are.
    """

    loss: float
    metric: str = ""
    accuracy: float | None = None
    samples: int = 0

    def beats(self, other: Evaluated) -> bool:
        """Whether this state is the better one: by accuracy if the samples can tell the two apart, else by the loss.

        They can where shares of right answers differ by more than their standard error.
        """
        if (
            self.accuracy is not None
            and other.accuracy is not None
            and self.metric.startswith("top")
        ):
            share = (self.accuracy + other.accuracy) / 2
            error = math.sqrt(share * (1 - share) / max(self.samples, 1))
            if abs(self.accuracy - other.accuracy) > error:
                return self.accuracy > other.accuracy
        return self.loss < other.loss

    @property
    def finite(self) -> bool:
        """Whether it can be compared at all."""
        return math.isfinite(self.loss)

    def __str__(self) -> str:
        told = "" if self.accuracy is None else f", {self.metric} {self.accuracy:.4f}"
        return f"loss {self.loss:.4g}{told}"


@dataclass(frozen=True)
class Epoch:
    """One epoch.

    Attributes:
        number: From 1.
        loss: Mean of its steps, penalties included.
        evaluated: The state at its end.
        rate: Learning rate of its last step.
        seconds: Time it took, evaluation included.
    """

    number: int
    loss: float
    evaluated: Evaluated
    rate: float
    seconds: float


@dataclass(frozen=True)
class Trained:
    """What came out of a loop.

    Attributes:
        weights: Of the best state, all finite.
        start: Worth of the state before the first step.
        best: Worth of the best state.
        best_epoch: The epoch that ended with it; 0 is the start.
        epochs: Those that ran to their end.
        stopped: Why it ended early, in words; empty if it did not.
        diverged: Whether the loss exploded, or became infinite or NaN.
        interrupted: Whether the user ended it.
        rate: The learning rate at the top of the schedule.
        lowered: How often that was lowered.
    """

    weights: Arrays
    start: Evaluated
    best: Evaluated
    best_epoch: int
    epochs: tuple[Epoch, ...] = ()
    stopped: str = ""
    diverged: bool = False
    interrupted: bool = False
    rate: float = 0.0
    lowered: int = 0


Evaluate = Callable[[Runner], Evaluated]
"""The worth of the state that a runner is in."""


@dataclass
class _Best:
    weights: Arrays
    evaluated: Evaluated
    epoch: int = 0


@dataclass
class _Progress:
    """How far a loop has come."""

    total: int
    done: int = 0
    losses: list[float] = field(default_factory=list)


def train(
    runner: Runner,
    source: Source,
    evaluate: Evaluate,
    *,
    epochs: int,
    batch: int,
    rate: float,
    schedule: Schedule,
    seed: int = 0,
    progress: Progress | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    label: str = "",
    keep_last: bool = False,
    lowerings: int = 0,
    trial: int = 0,
) -> Trained:
    """Trains, and gives back the best state seen.

    Args:
        runner: The step and its state.
        source: Feeds of the training samples.
        evaluate: Worth of a state, on other samples.
        epochs: How often all samples are seen.
        batch: Samples a step.
        rate: The learning rate that the schedule's factor is applied to.
        schedule: Called with each step.
        seed: Of the order of the samples.
        progress: Where it is shown.
        on_epoch: Called at the end of each epoch.
        label: What is trained, in front of what is shown.
        keep_last: The last finite state counts as the best: sparse training makes it worse on purpose.
        lowerings: How often training may begin anew with a lower rate, where the first epoch does harm, or the trial.
        trial: The epoch at whose end the loss has to be smaller than before the first step; 0: it may take its time.

    Returns:
        The best state; where the loss diverged or the user interrupted, that of before.

    Raises:
        ModelError: onnxruntime fails, or the model is not finite before the first step.
    """
    random = np.random.default_rng(seed)
    names = _best_names(runner)
    start = evaluate(runner)
    if not start.finite:
        raise ModelError(
            f"training cannot start: the model's {start} on the samples held aside; look for "
            "infinite weights, or samples far out of range"
        )
    best = first = _Best(runner.arrays(names), start)
    batches = len(rows_of(source.data, batch, np.arange(len(source.data)), whole=True))
    state = _Progress(epochs * batches)
    done: list[Epoch] = []
    stopped, interrupted, limit = "", False, 0.0
    lowered = 0
    try:
        while len(done) < epochs and not stopped:
            number, began = len(done) + 1, time.perf_counter()
            order = random.permutation(len(source.data))
            shown = f"{label}epoch {number}/{epochs}, {done[-1].evaluated if done else start}"
            state.losses.clear()
            last = 0.0
            with (progress or Silent()).step(shown, total=batches) as advance:
                for feed in prefetched(source.feed, rows_of(source.data, batch, order, whole=True)):
                    last = rate * schedule(state.done, state.total)
                    loss = runner.run(feed, last)
                    state.done += 1
                    limit = limit or EXPLODED * max(1.0, start.loss, loss)
                    if not loss < limit:
                        stopped = _diverged(number, state.done, loss, last)
                        break
                    state.losses.append(loss)
                    advance(1)
            worth = start if stopped else evaluate(runner)
            weights = runner.arrays(names)
            if not worth.finite or not all(np.isfinite(each).all() for each in weights.values()):
                stopped = stopped or _diverged(number, state.done, worth.loss, last)
            harmful = (number == 1 and worth.loss > HARM * start.loss) or (
                number == trial and worth.loss > start.loss
            )
            early = number <= max(trial, 1)
            if early and (stopped or harmful) and lowered < lowerings:
                runner.restart()
                best = first
                done.clear()
                lowered, rate, stopped, limit = lowered + 1, rate / LOWER, "", 0.0
                state = _Progress(epochs * batches)
                continue
            if stopped:
                break
            seconds = time.perf_counter() - began
            done.append(Epoch(number, float(np.mean(state.losses)), worth, last, seconds))
            if on_epoch is not None:
                on_epoch(done[-1])
            if keep_last or worth.beats(best.evaluated):
                best = _Best(weights, worth, number)
    except KeyboardInterrupt:
        interrupted = True
        stopped = f"interrupted in epoch {len(done) + 1} of {epochs}"
    return Trained(
        best.weights,
        start,
        best.evaluated,
        best.epoch,
        tuple(done),
        stopped,
        diverged=bool(stopped) and not interrupted,
        interrupted=interrupted,
        rate=rate,
        lowered=lowered,
    )


def _best_names(runner: Runner) -> dict[str, str]:
    """What a state consists of: averages where they are kept, weights and running statistics."""
    step = runner.step
    own = {name: name for name in step.carried if not name.startswith(step.prefix)}
    return {**own, **step.averages}


def _diverged(epoch: int, step: int, loss: float, rate: float) -> str:
    return (
        f"training diverged in epoch {epoch}, by step {step} (loss {loss:g}, learning rate {rate:.3g}); "
        "lower --lr, set --clip-norm, or look for extreme values in the data"
    )
