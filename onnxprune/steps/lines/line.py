"""A line of models, each pruned further than the one before, and all that is gone of the original by then.

Channels, layers and zeros differ in how a step goes on, in how two cuts become one, and in nothing else; the loops over
steps (`progressive`) and over probes (`within_drop`) know none of them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import onnx_ir as ir

from onnxprune.errors import ValidationError
from onnxprune.graph import weights
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.report import Cost, TrialRow
from onnxprune.report.timing import Clock
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.outcome import Outcome
from onnxprune.train.blocks import Kept

__all__ = ["Line", "Stage", "check_shapes", "cut_only"]

Gone = TypeVar("Gone")


@dataclass(frozen=True)
class Stage(Generic[Gone]):
    """A model on the line.

    Attributes:
        model: The model.
        gone: What of the original is gone.
        notes: What the user should know.
        way: How it was chosen, in words.
        trials: What was tried on the way to it.
    """

    model: ir.Model
    gone: Gone
    notes: tuple[str, ...] = ()
    way: str = ""
    trials: tuple[TrialRow, ...] = ()


class Line(Protocol[Gone]):
    """How models of one kind of granularity follow each other."""

    def start(self) -> Stage[Gone]:
        """The original."""
        ...

    def further(
        self, stage: Stage[Gone], amount: float, data: Dataset, progress: Progress, clock: Clock
    ) -> Stage[Gone]:
        """The next model, with a fraction of the original gone, proven exact against the one before; not repaired."""
        ...

    def rewound(self, gone: Gone) -> ir.Model:
        """The original without what is gone: surviving weights as they were."""
        ...

    def refit(self, stage: Stage[Gone], data: Dataset, progress: Progress) -> str:
        """Repairs the stage's model in place so that it gives what the original gives; what was done, in words."""
        ...

    def kept(self, gone: Gone) -> Kept | None:
        """The places that are left along the axes of the original's values; None where all are."""
        ...

    def cost(self, stage: Stage[Gone]) -> Cost:
        """What the stage's model costs."""
        ...

    def outcome(self, stage: Stage[Gone]) -> Outcome:
        """The stage as the result of a run, with the plan of all that is gone and the proof of it."""
        ...

    def to_json(self, gone: Gone) -> Any:
        """What is gone, as JSON takes it."""
        ...

    def from_json(self, plain: Any) -> Gone:
        """Reads what `to_json` gave."""
        ...


def check_shapes(whole: ir.Model, model: ir.Model) -> None:
    """Raises ValidationError where a weight is not as large as the cut of the original makes it."""
    expected = {weight.name: weight.shape for weight in weights(whole)}
    for weight in weights(model):
        if expected.get(weight.name, weight.shape) != weight.shape:
            raise ValidationError(
                f"the steps left {weight.name!r} of shape {weight.shape}, their plan {expected[weight.name]};"
                " nothing was written: use fewer steps"
            )


def cut_only(options: PruneOptions) -> PruneOptions:
    """The options of one step without its repair."""
    return replace(
        options, steps=None, rewind="none", checkpoint=None, recover="none", fold=False, train=None
    )
