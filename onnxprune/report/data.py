"""What a run did and measured, as plain data.

Every command fills the same `Report`; what it has nothing to say about stays empty. The terminal and the JSON file are
two views of it, and the Python API returns it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Check", "Cost", "DimRow", "LayerRow", "Report", "StepRow", "TensorRow", "TrialRow"]


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        params: Elements of its float (or quantised) constant tensors.
        bytes: Of the model file and its external data; None where none is written.
        macs: Multiply-accumulates of one run at batch 1; None where they are not known.
        zeros: Elements of its weights that are zero; None where not counted.
    """

    params: int
    bytes: int | None = None
    macs: int | None = None
    zeros: int | None = None


@dataclass(frozen=True)
class DimRow:
    """One Dim: indices that live and die together.

    Attributes:
        name: A name a reader recognises, such as that of the tensor that makes it.
        size: Its indices in the input model.
        kept: Those left; equal to `size` where nothing is cut.
        params: Elements of all tensors along it.
        macs: Multiply-accumulates that run along it; None where not known.
        reason: Why it cannot be cut; empty where it can.
        inexact: Whether a normalisation or mean runs over it.
        tensors: The constant tensors that have it as an axis.
        losses: What removing the shares `onnxprune.plan.losses.CUTS` of it, all else whole, does to the outputs; empty
            where that was not measured.
    """

    name: str
    size: int
    kept: int
    params: int = 0
    macs: int | None = None
    reason: str = ""
    inexact: bool = False
    tensors: tuple[str, ...] = ()
    losses: tuple[float, ...] = ()


@dataclass(frozen=True)
class TensorRow:
    """One tensor that was zeroed in part."""

    name: str
    shape: tuple[int, ...]
    zeroed: int

    @property
    def size(self) -> int:
        """Its elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class LayerRow:
    """One layer that was left out, or could be.

    Attributes:
        name: The sum that goes round it.
        nodes: How many nodes go with it.
        params: Elements of their weights.
        macs: Multiply-accumulates of a run.
        moved: How far the outputs are from the original's without it and those that had gone by then, not repaired;
            None where that was not measured.
    """

    name: str
    nodes: int
    params: int
    macs: int
    moved: float | None


@dataclass(frozen=True, kw_only=True)
class StepRow:
    """One step of progressive pruning, or one model tried; number 0 is the original.

    Attributes:
        number: From 1, in the order in which they were made.
        asked: The fraction of the original that was to be left, in what the run counts in.
        params: Elements of its learned tensors.
        macs: Multiply-accumulates of one run; None where they stay.
        zeros: Weights that are zero; None where channels were cut out.
        metric: Of the accuracies: `top-1`, `R2`, or `agreement` with the original.
        cut: Accuracy before the repair; None of the original.
        recovered: Accuracy after the repair.
        drop: What the original's is above it.
        bound: The upper end of the interval around the drop.
        samples: Samples held aside that they were measured on.
        held: Whether it is good enough to go on from.
        seconds: Time it took.
    """

    number: int
    asked: float
    params: int
    macs: int | None = None
    zeros: int | None = None
    metric: str = ""
    cut: float | None = None
    recovered: float = 1.0
    drop: float = 0.0
    bound: float = 0.0
    samples: int = 0
    held: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class TrialRow:
    """One cut that was repaired and judged on samples held aside, among others that leave as much.

    Attributes:
        route: The stage it is of, such as `2 of 3`, or `at once`; `repair` where other repairs of the best are tried.
        left: The fraction of the original that it leaves, in what the target counts in.
        way: How it was chosen.
        repair: How it was repaired.
        error: How far its outputs are from the original's (see `onnxprune.scores.distance`).
        taken: Whether it went on.
    """

    route: str
    left: float
    way: str
    repair: str
    error: float
    taken: bool = False


@dataclass(frozen=True)
class Check:
    """One thing that was measured on onnxruntime.

    Attributes:
        name: Such as `cut equals mask`, `drift`, `accuracy`, `latency`.
        passed: Whether it held; None where it is a measurement without a bar.
        summary: One line for a reader.
        values: The figures, as JSON takes them.
    """

    name: str
    passed: bool | None
    summary: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a run did and why, and what onnxruntime measured.

    Attributes:
        command: Which one it was.
        input: The model read (of `validate`: the first one).
        output: The model written (of `validate`: the second one); None where none was.
        options: As `PruneOptions.to_dict` gives them (of `finetune`: the fields of `TrainOptions`).
        before: What the input costs.
        after: What the output costs.
        dims: One row a Dim.
        tensors: One row a zeroed tensor.
        layers: One row a layer that was left out, in the order in which they were; of `inspect` that could be.
        trials: One row a cut that was tried, in the order in which they were made.
        steps: One row a step of progressive pruning, the original first.
        frozen: Why indices cannot be cut, and how many indices each reason holds, most first.
        skipped: Weights left alone by name, with the reason.
        checks: What was measured.
        timings: Seconds by step, in order.
        notes: What else the user should know, a sentence each.
        versions: Of the packages that were used.
    """

    command: Literal["prune", "inspect", "validate", "finetune"]
    input: str
    output: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    before: Cost | None = None
    after: Cost | None = None
    dims: tuple[DimRow, ...] = ()
    tensors: tuple[TensorRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    steps: tuple[StepRow, ...] = ()
    frozen: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether no check failed."""
        return all(check.passed is not False for check in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON takes it: numbers that are not finite become None."""
        plain: dict[str, Any] = _plain({"format": "onnxprune-report/1", **asdict(self)})
        return plain


def _plain(value: Any) -> Any:
    match value:
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case bool() | int() | str() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
    if hasattr(value, "item"):  # a numpy scalar
        return _plain(value.item())
    return str(value)
