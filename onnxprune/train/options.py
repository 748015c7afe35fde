"""Every choice of a training run as one frozen value, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from onnxprune.checks import at_least, choice, known, not_negative, share
from onnxprune.errors import OptionError
from onnxprune.train.augment import check_ways
from onnxprune.train.optimizers import SGD, AdamW, Optimizer
from onnxprune.train.schedules import schedule
from onnxprune.train.step import StepOptions

__all__ = ["TrainOptions", "make_options"]

OptimizerName = Literal["auto", "adamw", "sgd"]
BatchNorm = Literal["auto", "live", "frozen"]
_RATE = 1e-3
_SGD_RATE, _SGD_BATCH = 0.025, 64
"""A rate and the samples a step that go with it; in proportion to them: Goyal et al. 2017, arXiv:1706.02677."""
_SGD_DECAY = 5e-4
_BATCH, _LARGE_BATCH, _MANY = 32, 64, 4000
"""Samples a step, and from how many samples on more."""
_TAUGHT_BATCH = 16
"""Samples a step without labels, where there are not many: what a teacher says is exact, and steps are what counts."""
_TEMPERATURE, _TEMPERATURE_BESIDE_LABELS = 2.0, 4.0
_EPOCHS, _SHOWN = 10, 10_000
"""How often all samples are seen, and how many are to be seen in all where few are moved about and have no labels."""


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How a model is trained.

    Attributes:
        epochs: How often all samples are seen; None: 10, without labels as often as makes 10,000 if that is more.
        block_epochs: How often each block sees the samples when the blocks of the model learn one by one, before the
            whole is trained, to give what the original's give; 0 leaves that out. None: so where there is a teacher
            and there are no labels.
        batch_size: Samples a step; a fixed batch of the model overrules it. None: 64 of 4000 samples or more, else 32,
            without labels 16.
        lr: Learning rate at the top of the schedule; None: 1e-3 for AdamW, for SGD 0.025 by 64 samples a step; where
            that does harm at once, less.
        optimizer: `adamw`, `sgd`, or `auto`: SGD, with Nesterov's momentum and a weight decay of 5e-4 if none is
            given, where there are labels, the network is normalised by its batches, and no rate is given; else AdamW.
        relative: Of AdamW: whether the rate is relative to the size of each weight's numbers, which BatchNormalization
            folded into them may have made anything; None: where no rate is given and there are no labels.
        momentum: Of SGD.
        nesterov: Of SGD.
        weight_decay: Of the optimizer; applies to weights of two and more axes. None: see `optimizer`, else 0.
        schedule: `constant`, `cosine` or `one-cycle`.
        warmup: Share of all steps in which the rate rises linearly, 0 <= w < 1.
        clip_norm: Largest global norm of the gradients; None does not clip.
        clip_value: Largest absolute value of a gradient's element; None does not clip.
        l1: Weight of the sum of |w| in the loss; as weight decay, not for biases.
        l2: Weight of half the sum of w^2 in the loss; likewise.
        ema: Decay of the moving average of the weights, which is then the result; None keeps none.
        group_lasso: Weight of the norms of whole channels in the loss, which drives some of them to zero.
        batchnorm: `live` statistics of each batch (on the CPU of parts of it, see `runner`), with the running ones
            carried along, `frozen` ones, or `auto`: live where the model's nodes and the batch allow it.
        unfold: Whether BatchNormalization that was folded into convolutions is put back while training (see
            `unfold`), unless it is to be frozen; None: where there are 1000 samples or more.
        smoothing: Label smoothing.
        temperature: Of distillation; None: 4 where there are labels too, else 2.
        alpha: Share of the teacher where there are labels too.
        features: Weight of following the original's values between blocks too, where there is one.
        held_aside: Share of the samples, 1000 at most, that training never sees, and states are compared on.
        augment: How the images of a batch are moved about: `flip`, `crop`, `zoom`, `mix` (see `augment`); the teacher
            sees the same ones. None: in every way where a teacher alone says what is right, else in those that leave
            the labels right (see `harmless`).
        keep_zeros: Zeros in weights of two and more axes stay zero.
        include: Patterns of names: train these constants only.
        exclude: Patterns of names that are not trained.
        seed: Of the order of the samples and of those held aside.
        providers: Execution providers by name.
        threads: Cores to use; None: all there are.
    """

    epochs: int | None = None
    block_epochs: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    optimizer: OptimizerName = "auto"
    relative: bool | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float | None = None
    schedule: str = "cosine"
    warmup: float = 0.05
    clip_norm: float | None = 1.0
    clip_value: float | None = None
    l1: float = 0.0
    l2: float = 0.0
    ema: float | None = None
    group_lasso: float = 0.0
    batchnorm: BatchNorm = "auto"
    unfold: bool | None = None
    smoothing: float = 0.0
    temperature: float | None = None
    alpha: float = 0.7
    features: float = 0.0
    held_aside: float = 0.1
    augment: tuple[str, ...] | None = None
    keep_zeros: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0
    providers: tuple[str, ...] = ("cpu",)
    threads: int | None = None

    def __post_init__(self) -> None:
        """Raises OptionError where a value is out of range."""
        at_least("epochs", self.passes(), 1)
        at_least("batch-size", self.batch, 1)
        if not 0 < self.rate < float("inf"):
            raise OptionError(f"lr must be a finite number above 0, not {self.lr}")
        if self.block_epochs is not None:
            at_least("block-epochs", self.block_epochs, 0)
        not_negative("features", self.features)
        choice("optimizer", self.optimizer, get_args(OptimizerName))
        choice("batchnorm", self.batchnorm, get_args(BatchNorm))
        share("warmup", self.warmup)
        share("held-aside", self.held_aside)
        check_ways(self.augment or ())
        schedule(self.schedule)
        _ = self.method, self.step

    @property
    def batch(self) -> int:
        """Samples a step, as few as by default where none are given."""
        return _BATCH if self.batch_size is None else self.batch_size

    @property
    def rate(self) -> float:
        """The learning rate, that of the optimizer where none is given."""
        if self.lr is not None:
            return self.lr
        if self.optimizer == "sgd":
            return _SGD_RATE * self.batch / _SGD_BATCH
        return _RATE

    @property
    def scaled(self) -> bool:
        """Whether updates are scaled by the size of each weight's numbers."""
        return bool(self.relative) and self.optimizer != "sgd"

    def settled(self, labels: bool, samples: int, normalised: bool) -> TrainOptions:
        """With everything decided that was left open, but for the rate.

        Args:
            labels: Whether there are any.
            samples: How many are trained on.
            normalised: Whether BatchNormalization has the statistics of each batch.
        """
        by_sgd = self.optimizer == "auto" and labels and normalised and self.lr is None
        decay = self.weight_decay
        return replace(
            self,
            epochs=self.passes(labels, samples),
            batch_size=self.batch_size or _batch(labels, samples),
            optimizer=("sgd" if by_sgd else "adamw")
            if self.optimizer == "auto"
            else self.optimizer,
            nesterov=self.nesterov or by_sgd,
            weight_decay=(_SGD_DECAY if by_sgd else 0.0) if decay is None else decay,
            relative=self.lr is None and not labels if self.relative is None else self.relative,
        )

    def passes(self, labels: bool = True, samples: int = 1) -> int:
        """How often all samples are seen: where it is left open, few of them without labels often."""
        often = _EPOCHS if labels else max(_EPOCHS, -(-_SHOWN // samples))
        return often if self.epochs is None else self.epochs

    def softening(self, labels: bool) -> float:
        """The temperature of distillation."""
        if self.temperature is not None:
            return self.temperature
        return _TEMPERATURE_BESIDE_LABELS if labels else _TEMPERATURE

    def by_blocks(self, labels: bool) -> bool:
        """Whether blocks are trained one by one first: if not said, where there are no labels."""
        return not labels if self.block_epochs is None else self.block_epochs > 0

    @property
    def method(self) -> Optimizer:
        """The optimizer."""
        decay = self.weight_decay or 0.0
        if self.optimizer == "sgd":
            return SGD(self.momentum, self.nesterov, decay)
        return AdamW(weight_decay=decay)

    @property
    def step(self) -> StepOptions:
        """What the step does beside the optimizer."""
        return StepOptions(
            self.clip_norm, self.clip_value, self.l1, self.l2, self.ema, self.group_lasso
        )


def _batch(labels: bool, samples: int) -> int:
    if samples >= _MANY:
        return _LARGE_BATCH
    return _BATCH if labels else _TAUGHT_BATCH


def make_options(**values: Any) -> TrainOptions:
    """Options from plain values: lists for tuples, 0 for a limit that does not clip.

    Raises:
        OptionError: An unknown field, or a value that makes no sense.
    """
    known(values, [item.name for item in fields(TrainOptions)])
    if isinstance(values.get("augment"), str):
        ways = [way.strip() for way in values["augment"].split(",") if way.strip()]
        values["augment"] = [] if ways == ["none"] else ways
    for name in ("include", "exclude", "providers", "augment"):
        if values.get(name) is not None:
            value = values[name]
            values[name] = (value,) if isinstance(value, str) else tuple(value)
    for name in ("clip_norm", "clip_value"):
        if values.get(name) == 0:
            values[name] = None
    return TrainOptions(**values)
