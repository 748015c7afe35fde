"""Widths for a latency: predicted layer by layer, measured as a whole, and corrected until both agree.

The search only ever removes, so it comes from above: it stops short of the goal, measures the model that it has by then
against the one that it began with, learns how far the prediction was off, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from onnxprune.dims import Dim, Tracing, cut
from onnxprune.plan.latency import latency_cost
from onnxprune.plan.widths import shrink_to
from onnxprune.runtime.inputs import random_feed
from onnxprune.runtime.latency import measure, undisturbed
from onnxprune.runtime.layer_times import layer_times
from onnxprune.runtime.sessions import session
from onnxprune.scores.obs import Consumers

__all__ = ["Stopwatch", "reach_latency"]

SHORT = 0.5
"""Of the way to the goal is left for after the first measurement."""
CLOSE = 0.01
"""Within this of the goal, relatively, it is reached."""
MOST = 6
"""Measurements of the whole model."""
SECONDS = 1.0


class Stopwatch:
    """Latency relative to a model.

    Args:
        tracing: The model, and shapes of its inputs.
        providers: onnxruntime providers by name.
    """

    def __init__(self, tracing: Tracing, providers: Sequence[str]) -> None:
        self.providers = providers
        self.before = session(tracing.model, providers)
        self.feed = random_feed(tracing.model, tracing.measured.inputs, 0)

    def ratio(self, model: ir.Model) -> float:
        """Latency of a model over that of the first, run in turns."""
        sessions = [self.before, session(model, self.providers)]
        times = measure(sessions, [self.feed] * 2, seconds=SECONDS)
        return undisturbed(times[:, 1]) / undisturbed(times[:, 0])


def reach_latency(
    tracing: Tracing,
    consumers: Consumers,
    target: float,
    steps: Mapping[Dim, int],
    least: Mapping[Dim, int],
    providers: Sequence[str],
    advance: Callable[[int], None] = lambda _n: None,
) -> float:
    """Removes indices until a run takes at most `target` times as long as it did.

    Args:
        tracing: The model.
        consumers: What every index costs in accuracy; changed in place.
        target: The fraction of the time that may be left.
        steps: A Dim keeps a multiple of so many indices.
        least: The fewest indices that a Dim may keep.
        providers: onnxruntime providers by name.
        advance: Told how many indices went.

    Returns:
        The fraction of the time that is left; more than `target` where nothing more could go.
    """
    watch = Stopwatch(tracing, providers)
    with layer_times(providers) as times:
        cost = latency_cost(tracing, times, steps)
        aim = target + SHORT * (1 - target)
        for _ in range(MOST):
            left = shrink_to(consumers, cost, aim, steps, least, advance)
            measured = watch.ratio(cut(tracing, consumers.keep()))
            if measured <= target * (1 + CLOSE):
                break
            if left > aim:
                return measured
            aim = left * target / measured
    return min(measured, target)
