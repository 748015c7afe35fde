"""Widths for a latency: predicted layer by layer, measured as a whole, and corrected until both agree.

The search only ever removes, so it comes from above: it stops short of the goal, measures the model that it has by then
against the one that it began with, learns how far the prediction was off, and goes on. What one search of a model has
learned the next one knows.

What goes first may be told by the time that it saves, in widths that the kernels like, or by its MACs, in widths of any
kind: time is what is asked for, but it is the worse guide where layers are too small to be timed well, or where a block
of channels at once is too much. Whatever tells, the time that is measured decides when it is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, Tracing, cut
from onnxprune.errors import NothingToPruneError
from onnxprune.plan.budget import COSTS
from onnxprune.plan.latency import Whole, latency_cost
from onnxprune.plan.widths import shrink_to
from onnxprune.runtime.inputs import Shapes, random_feed
from onnxprune.runtime.latency import measure, undisturbed
from onnxprune.runtime.layer_times import layer_times
from onnxprune.runtime.sessions import session
from onnxprune.scores.obs import Consumers

__all__ = ["Pace", "Stopwatch"]

SHORT = 0.5
"""Of the way to the goal is left for after the first measurement, where nothing is known yet."""
CLOSE = 0.01
"""Within this of the goal, relatively, it is reached."""
FAR = 0.4
"""Of the target: predictions that are to be so much lower for it are predictions of something else."""
MOST = 8
"""Measurements of the whole model."""
SECONDS = 1.0


class Stopwatch:
    """Latency relative to a model.

    Args:
        model: The model.
        inputs: Shapes of its inputs.
        providers: onnxruntime providers by name.
    """

    def __init__(self, model: ir.Model, inputs: Shapes, providers: tuple[str, ...]) -> None:
        self.providers = providers
        self.before = session(model, providers)
        self.feed = random_feed(model, inputs, 0)

    def ratio(self, model: ir.Model) -> float:
        """Latency of a model over that of the first, run in turns."""
        sessions = [self.before, session(model, self.providers)]
        times = measure(sessions, [self.feed] * 2, seconds=SECONDS)
        return undisturbed(times[:, 1]) / undisturbed(times[:, 0])


class Pace:
    """How fast a model is at other widths.

    Args:
        tracing: The model.
        providers: onnxruntime providers by name.
    """

    def __init__(self, tracing: Tracing, providers: tuple[str, ...]) -> None:
        self.tracing, self.providers = tracing, providers
        self._seen: dict[str, list[tuple[float, float]]] = {}

    @cached_property
    def _whole(self) -> Whole:
        return Whole.of(self.tracing, self.providers)

    @cached_property
    def _watch(self) -> Stopwatch:
        return Stopwatch(self.tracing.model, self.tracing.measured.inputs, self.providers)

    def reach(
        self,
        consumers: Consumers,
        target: float,
        steps: Mapping[Dim, int],
        least: Mapping[Dim, int],
        saves: str = "latency",
        advance: Callable[[int], None] = lambda _n: None,
    ) -> float:
        """Removes indices until a run takes at most `target` times as long as it did.

        Args:
            consumers: What every index costs in accuracy; changed in place.
            target: The fraction of the time that may be left.
            steps: A Dim keeps a multiple of so many indices.
            least: The fewest indices that a Dim may keep.
            saves: What an index is chosen to save for what it costs: `latency`, `macs`, `params` or `bytes`.
            advance: Told how many indices went.

        Returns:
            The fraction of the time that is left; more than `target` where nothing more could go.

        Raises:
            NothingToPruneError: What is measured stays so far above what is predicted that no more should go for it.
        """
        with layer_times(self.providers) as times:
            cost = (
                latency_cost(self.tracing, times, steps, self._whole)
                if saves == "latency"
                else COSTS[saves](self.tracing)
            )
            seen = self._seen.setdefault(saves, [])
            aim = _where(target, seen) if seen else target + SHORT * (1 - target)
            for _ in range(MOST):
                left = shrink_to(consumers, cost, aim, steps, least, advance)
                measured = self._watch.ratio(cut(self.tracing, consumers.keep()))
                seen.append((measured, left))
                if measured <= target * (1 + CLOSE):
                    break
                if left > aim:
                    return measured
                aim = min(_where(target, seen), left * target / measured)
                if aim < FAR * target:
                    raise NothingToPruneError(
                        f"the target latency={target:g} is out of reach: by prediction {left:.3f} of the {saves} are"
                        f" left, and {measured:.3f} of the time is measured; other work disturbs the measurement, or"
                        " the time is not spent in what can be cut"
                    )
        return min(measured, target)


def _where(target: float, seen: Sequence[tuple[float, float]]) -> float:
    """The prediction for a ratio that is to be measured.

    Straight between what was measured, and in proportion below all of it.

    Args:
        target: The ratio.
        seen: Ratios that were measured, and what was predicted for them.
    """
    measured, predicted = np.array(sorted([*seen, (1.0, 1.0)])).T
    if target < measured[0]:
        return float(predicted[0] * target / measured[0])
    return float(np.interp(target, measured, predicted))
