"""Every choice of a pruning run as one frozen value, checked when it is made.

The command line and the Python API both build `PruneOptions`; nothing behind them reads flags. A value that makes no
sense alone, or two that contradict each other, raise `OptionError` here and nowhere later.
"""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from onnxprune.checks import at_least, choice, known, not_negative, share
from onnxprune.errors import OptionError
from onnxprune.options.granularity import (
    NM,
    Channel,
    Granularity,
    Layer,
    Unstructured,
    parse_granularity,
)
from onnxprune.options.target import Target, parse_target
from onnxprune.scores import Ranked, criterion_names, get_criterion
from onnxprune.train.options import TrainOptions, make_options

__all__ = [
    "DEFAULT_SPARSITY",
    "PruneOptions",
    "Recover",
    "Rewind",
    "ScheduleName",
    "Scope",
    "check_report",
]

Scope = Literal["auto", "layer", "global"]
Recover = Literal["auto", "none", "bias", "lstsq", "bn", "finetune"]
ScheduleName = Literal["linear", "cubic", "exponential"]
Rewind = Literal["none", "weights"]

DEFAULT_SPARSITY = 0.5
REPORTS = (".json", ".html")
_KINDS: Mapping[str, Any] = {
    "granularity": get_args(Granularity),
    "target": Target,
    "train": TrainOptions,
    **dict.fromkeys(("data", "plan", "report", "checkpoint"), Path),
}


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What to prune, by what measure, how far, and what to check and write.

    Attributes:
        granularity: `channel`, `layer`, `weight`, `N:M` or `block:RxC`.
        sparsity: Fraction to remove, 0 <= s < 1. None: one half, unless a threshold or N:M says how much.
        threshold: Zero weights with a saliency <= threshold: |w| of `magnitude`, |dL/dw| of `gradient` (granularity
            `weight`).
        relative_threshold: Zero weights with a saliency <= theta * the sum of their tensor's (granularity `weight`).
        target: What must be left, such as 0.5 of the MACs, instead of a sparsity (granularity `channel`).
        criterion: Name of a criterion of `onnxprune.scores`; `auto` becomes `obs` where there are data, but for blocks
            and thresholds, else `magnitude`.
        scope: What competes with what: the indices of one `layer`, or those of the model (`global`). With a target,
            `layer` leaves the same share of every layer. `auto` becomes `global` where channels go and there is a
            target, and where `obs` chooses single weights, else `layer`.
        data: Data set for validation and for the criteria that need one; `synthetic`: made-up samples.
        exclude: Glob patterns of names (tensors, nodes) never to touch.
        min_channels: Least number of channels that a Dim keeps.
        round_to: Keep multiples of this many channels; None: what the machine's kernels like; 1: off.
        allow_inexact: Also cut Dims that a normalisation or a mean runs over.
        shapes: Shapes of inputs whose axes are open, by input name; those not given are found by trying.
        providers: Execution providers by short name (`cpu`, `cuda`) or onnxruntime name, in order.
        seed: Of everything random: the criterion `random`, the inputs of the checks.
        plan: Where to write the plan, JSON.
        report: Where to write the report, .json or .html.
        dry_run: Plan and report, write no model.
        recover: How the accuracy is repaired after cutting; `auto` becomes `lstsq` where the criterion was left open
            too and there are data, else `none`. `bias` folds means into biases, `bn` re-estimates the statistics of
            BatchNormalization, `finetune` trains, behind `lstsq` where channels are cut.
        fold: Whether channels of a constant value may be folded into biases before all else; None: unless `recover`
            is `none`, which leaves all weights as they were.
        train: How `finetune` trains; None: by its defaults.
        sparse_format: Write zeroed initializers as ONNX sparse initializers where that saves bytes.
        steps: Prune in so many steps, each cut, repaired and evaluated; None: at once.
        schedule: How much is gone after each step: `linear`, `cubic` or `exponential`.
        rewind: What each step repairs: `none`, the weights as the step before left them, or `weights`, those of the
            original.
        checkpoint: Folder that keeps the steps done, so that a run that was killed goes on; None: beside the output.
        check_drift: Measure how far the outputs moved from the original's.
        check_latency: Measure latency before and after.
        left_open: Which of criterion, scope and recover the user did not decide; found out when the options are made.
    """

    granularity: Granularity = field(default_factory=Channel)
    sparsity: float | None = None
    threshold: float | None = None
    relative_threshold: float | None = None
    target: Target | None = None
    criterion: str = "auto"
    scope: Scope = "auto"
    data: Path | None = None
    exclude: tuple[str, ...] = ()
    min_channels: int = 1
    round_to: int | None = None
    allow_inexact: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    providers: tuple[str, ...] = ("cpu",)
    seed: int = 0
    plan: Path | None = None
    report: Path | None = None
    dry_run: bool = False
    recover: Recover = "auto"
    fold: bool | None = None
    train: TrainOptions | None = None
    sparse_format: bool = False
    steps: int | None = None
    schedule: ScheduleName = "cubic"
    rewind: Rewind = "none"
    checkpoint: Path | None = None
    check_drift: bool = True
    check_latency: bool = True
    left_open: frozenset[str] | None = None

    def __post_init__(self) -> None:
        """Raises OptionError where a value is out of range or contradicts another."""
        self._check_kinds()
        self._decide()
        share("sparsity", self.sparsity)
        not_negative("threshold", self.threshold)
        not_negative("relative threshold", self.relative_threshold)
        choice("criterion", self.criterion, criterion_names())
        choice("scope", self.scope, get_args(Scope))
        choice("recover", self.recover, get_args(Recover))
        at_least("min-channels", self.min_channels, 1)
        at_least("seed", self.seed, 0)
        if self.round_to is not None:
            at_least("round-to", self.round_to, 1)
        if not self.providers:
            raise OptionError("no execution provider given: name at least one, such as cpu")
        if self.report is not None:
            check_report(self.report)
        self._check_amount()
        self._check_granularity()
        self._check_recovery()
        self._check_criterion()
        self._check_steps()

    def _check_kinds(self) -> None:
        """Whether all is what its field is for, as of values from Python it may not be."""
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and (value is not None or name == "granularity"):
                raise OptionError(f"{name.replace('_', '-')} cannot be {value!r}")
        for name in ("exclude", "providers"):
            for each in getattr(self, name):
                if not isinstance(each, str):
                    raise OptionError(f"{name} takes texts, not {each!r}")
        for name, shape in self.shapes.items():
            for size in shape:
                at_least(f"the size of an axis of {name!r}", size, 1)

    def _decide(self) -> None:
        """What was left open."""
        if self.left_open is None:
            names = ("criterion", "scope", "recover")
            open_names = frozenset(name for name in names if getattr(self, name) == "auto")
            object.__setattr__(self, "left_open", open_names)
        if self.fold is None:
            object.__setattr__(self, "fold", self.recover != "none")
        layer = isinstance(self.granularity, Layer)
        known = self.data is not None and (self._fits_obs or layer)
        if self.recover == "auto":
            open_ = self.criterion in ("auto", "obs", "outputs") and known
            object.__setattr__(self, "recover", "lstsq" if open_ else "none")
        if self.criterion == "auto":
            by = "outputs" if layer else "obs" if known else "magnitude"
            object.__setattr__(self, "criterion", by)
        if self.scope == "auto":
            by_obs = self.criterion == "obs" and isinstance(self.granularity, Unstructured)
            free = self.target is not None and isinstance(self.granularity, Channel)
            everywhere = free or by_obs or layer
            object.__setattr__(self, "scope", "global" if everywhere else "layer")

    @property
    def _fits_obs(self) -> bool:
        """Whether optimal brain surgeon can choose: channels, N:M groups, or a fraction of the weights."""
        single = isinstance(self.granularity, Unstructured) and not self.uses_threshold
        return single or isinstance(self.granularity, (Channel, NM))

    def _check_recovery(self) -> None:
        if self.recover != "none" and self.data is None:
            raise OptionError(f"recovering by {self.recover} needs samples: give some with --data")
        if self.train is not None and self.recover != "finetune":
            raise OptionError("options of training go with --recover finetune")
        cost = self.target is not None and not self.limits_drop
        if not self.cuts and (self.recover == "bias" or cost):
            what = "a target" if cost else self.recover
            raise OptionError(
                f"{what} goes with granularity channel or layer, not {self.granularity}"
            )

    def _check_criterion(self) -> None:
        criterion = get_criterion(self.criterion)
        if not criterion.ranks(self._ranked):
            ranked = "channels and weights" if criterion.scores == "both" else criterion.scores
            raise OptionError(
                f"the criterion {self.criterion} ranks {ranked} only:"
                f" it does not go with granularity {self.granularity}"
            )
        if criterion.needs_data and self.data is None:
            raise OptionError(
                f"the criterion {self.criterion} runs the model on samples: give some with --data"
            )

    def _check_steps(self) -> None:
        choice("schedule", self.schedule, get_args(ScheduleName))
        choice("rewind", self.rewind, get_args(Rewind))
        if self.steps is None:
            if self.rewind != "none" or self.checkpoint is not None:
                name = "rewind" if self.rewind != "none" else "checkpoint"
                raise OptionError(f"{name} goes with progressive pruning: say how many --steps")
            return
        at_least("steps", self.steps, 1)
        if self.data is None:
            raise OptionError("steps are evaluated on samples: give some with --data")
        if isinstance(self.granularity, NM):
            raise OptionError(
                f"steps do not go with granularity {self.granularity}: N:M fixes the sparsity, there is one step only"
            )
        if self.uses_threshold:
            raise OptionError("steps go with a sparsity or a target, not with a threshold")

    def _check_amount(self) -> None:
        given = {
            "target": self.target,
            "sparsity": self.sparsity,
            "threshold": self.threshold,
            "relative threshold": self.relative_threshold,
        }
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise OptionError(f"{' and '.join(names)} both say how much to remove: give only one")
        if self.limits_drop and self.data is None:
            raise OptionError(
                f"the target {self.target} is measured on samples: give some with --data"
            )
        if isinstance(self.granularity, NM) and names:
            raise OptionError(
                f"{names[0]} does not go with granularity {self.granularity}: N:M fixes the sparsity"
            )
        if self.uses_threshold and str(self.granularity) != "weight":
            raise OptionError(
                f"{names[0]} needs granularity weight, not {self.granularity}: a threshold is on |w|"
            )

    def _check_granularity(self) -> None:
        if self.uses_threshold and self.criterion in ("random", "obs"):
            raise OptionError(
                f"a threshold is on the saliency of a weight: it does not go with the criterion {self.criterion}"
            )
        if self.criterion == "obs" and not self._fits_obs:
            raise OptionError(
                "the criterion obs chooses channels, N:M groups, or a fraction of the weights:"
                f" it does not go with granularity {self.granularity}"
            )
        if self.scope == "layer" and isinstance(self.granularity, Layer):
            raise OptionError(
                "layers compete with all others: scope layer does not go with granularity layer"
            )
        if self.sparse_format and self.cuts:
            raise OptionError(
                f"sparse initializers store zeros, and granularity {self.granularity} leaves none:"
                " use weight, N:M or block:RxC"
            )

    @property
    def limits_drop(self) -> bool:
        """Whether the accuracy, not the cost, says how far to go."""
        return self.target is not None and self.target.kind == "drop"

    @property
    def cuts(self) -> bool:
        """Whether what goes is cut out, and not zeroed."""
        return isinstance(self.granularity, (Channel, Layer))

    @property
    def repairs(self) -> bool:
        """Whether what was cut is repaired in closed form."""
        return self.recover in ("bias", "lstsq", "finetune")

    @property
    def _ranked(self) -> Ranked:
        """What the criterion ranks."""
        match self.granularity:
            case Channel():
                return "channels"
            case Layer():
                return "layers"
        return "weights"

    @property
    def uses_threshold(self) -> bool:
        """Whether a threshold, not a fraction, says how much to remove."""
        return self.threshold is not None or self.relative_threshold is not None

    @property
    def fraction(self) -> float:
        """The fraction to remove: what was asked for, or the default (N:M: what N and M say)."""
        if isinstance(self.granularity, NM):
            return 1 - self.granularity.n / self.granularity.m
        return DEFAULT_SPARSITY if self.sparsity is None else self.sparsity

    @classmethod
    def of(cls, **values: Any) -> PruneOptions:
        """Options from plain values: strings for the granularity and paths, lists for tuples.

        Args:
            **values: Fields by name; those left out, or None where None is no value, take their defaults.

        Raises:
            OptionError: An unknown field, or a value that makes no sense.
        """
        known(values, [item.name for item in fields(cls)])
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{name: _plain(name, value) for name, value in given.items()})

    def to_dict(self) -> dict[str, Any]:
        """The options as JSON takes them."""
        plain = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(self).items()}
        del plain["left_open"]
        return {
            **plain,
            "granularity": str(self.granularity),
            "sparsity": self._stated_sparsity(),
            "target": self.target and str(self.target),
        }

    def _stated_sparsity(self) -> float | None:
        return None if self.uses_threshold or self.target is not None else self.fraction


def _plain(name: str, value: Any) -> Any:
    if name == "granularity" and isinstance(value, str):
        return parse_granularity(value)
    if name == "target" and isinstance(value, str):
        return parse_target(value)
    if name == "train" and isinstance(value, Mapping):
        return make_options(**value)
    if name in ("data", "plan", "report", "checkpoint") and isinstance(value, str):
        return Path(value)
    if name == "shapes" and not isinstance(value, Mapping):
        return dict(parse_shape(text) for text in value)
    if name in ("exclude", "providers"):
        return (value,) if isinstance(value, str) else tuple(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Integral):  # NumPy's numbers are no JSON
        return int(value)
    return float(value) if isinstance(value, numbers.Real) else value


def parse_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """The input name and shape in `NAME=1x3x224x224`.

    Raises:
        OptionError: It is no such text.
    """
    name, equals, sizes = text.rpartition("=")
    parts = sizes.strip().split("x") if sizes.strip() else []
    if not (name and equals and all(part.isdecimal() and int(part) > 0 for part in parts)):
        raise OptionError(
            f"a shape is NAME=1x3x224x224, with the sizes of every axis, not {text!r}"
        )
    return name, tuple(int(part) for part in parts)


def check_report(path: Path) -> None:
    """Raises OptionError where the name of a report does not say what it is."""
    if path.suffix.lower() not in REPORTS:
        raise OptionError(
            f"a report is data or a page: name it something.json or something.html, not {path}"
        )
