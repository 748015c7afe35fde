"""Latency of models against each other, measured so that the machine's moods cancel out.

Each session in turn, in alternating order, for a set time: whatever else the machine does meanwhile
hits all of them alike, and the ratio within a round is far steadier than the two times are. A turn
is two runs, and the second counts: the first brings back what the other sessions have driven out of
the caches, as it is where one model runs over and over. Where a run takes long that is nothing to it, and
one is enough.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnxruntime as ort

from onnxprune.runtime.sessions import run

__all__ = ["Latency", "Speed", "measure", "speed", "undisturbed"]

LONG = 0.2
"""Seconds: in a run that takes as many, how long the caches take to fill does not show."""


@dataclass(frozen=True)
class Latency:
    """Time of one run of a session.

    Attributes:
        median_ms: Median over the runs, milliseconds.
        p10_ms: A tenth of the runs were faster.
        p90_ms: A tenth of the runs were slower.
        runs: How many runs were timed.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int


@dataclass(frozen=True)
class Speed:
    """Latency before and after, and the ratio of the two.

    Attributes:
        before: The first session.
        after: The second session.
        ratio: Median over the rounds of `after / before`; below 1 is faster.
        ratio_p10: A tenth of the rounds had a lower ratio.
        ratio_p90: A tenth of the rounds had a higher ratio.
    """

    before: Latency
    after: Latency
    ratio: float
    ratio_p10: float
    ratio_p90: float

    def to_dict(self) -> dict[str, object]:
        """The figures as plain data."""
        return asdict(self)


def measure(
    sessions: Sequence[ort.InferenceSession],
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    seconds: float = 3.0,
    warmup: int = 1,
    least: int = 3,
    most: int = 1000,
) -> np.ndarray:
    """Times every session on its feed, interleaved.

    Args:
        sessions: What to time.
        feeds: Input name to array, one for each session.
        seconds: Time after which no new round begins, warm-up included.
        warmup: Rounds at the start that do not count, but of runs that take long.
        least: Rounds that are timed in any case.
        most: Rounds after which it ends early.

    Returns:
        Seconds, shape (rounds, sessions).

    Raises:
        ModelError: A session does not run on its feed.
    """
    end = time.perf_counter() + seconds
    order = list(range(len(sessions)))
    rounds: list[list[float]] = []
    last = [0.0] * len(sessions)
    spent = 0
    while len(rounds) < least or (time.perf_counter() < end and len(rounds) < most):
        row = [0.0] * len(sessions)
        for index in order:
            if last[index] < LONG:
                run(sessions[index], feeds[index])
            start = time.perf_counter()
            run(sessions[index], feeds[index])
            row[index] = time.perf_counter() - start
        last = row
        order.reverse()
        if spent >= warmup or min(row) >= LONG:
            rounds.append(row)
        spent += 1
    return np.array(rounds)


def speed(
    before: ort.InferenceSession,
    after: ort.InferenceSession,
    feed: Mapping[str, np.ndarray],
    *,
    seconds: float = 3.0,
) -> Speed:
    """Latency of `after` against `before` on the same input.

    Args:
        before: Session of the original.
        after: Session of the pruned model.
        feed: Input name to array, for both.
        seconds: How long to measure.
    """
    times = measure([before, after], [feed, feed], seconds=seconds)
    ratios = times[:, 1] / times[:, 0]
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    return Speed(latency(times[:, 0]), latency(times[:, 1]), float(middle), float(low), float(high))


def undisturbed(seconds: np.ndarray) -> float:
    """What a run takes where nothing else wants the processor: the mean of the fastest quarter.

    A run that is interrupted is far longer than one that is not, and a short one is interrupted more rarely than a long
    one, so that medians of both would not do.
    """
    return float(np.sort(seconds)[: -(-len(seconds) // 4)].mean())


def latency(seconds: np.ndarray) -> Latency:
    """Sums up the times of one session, shape (runs,), in seconds."""
    low, middle, high = np.percentile(seconds * 1e3, [10, 50, 90])
    return Latency(float(middle), float(low), float(high), len(seconds))
