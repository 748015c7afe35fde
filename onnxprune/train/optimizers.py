"""Optimizers as graphs: from a weight, its gradient and its state to their next values.

With rate r, decay d, gradient g (a minimum is sought) and the definitions of PyTorch:

    SGD      g = g + d w;  b = m b + g;  w = w - r (g + m b if Nesterov else b)
             Polyak 1964; Nesterov 1983 as in Sutskever, Martens, Dahl, Hinton, ICML 2013
    AdamW    w = w (1 - r d);  m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2
             w = w - r/(1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
             Kingma and Ba 2015, arXiv:1412.6980; Loshchilov and Hutter 2019, arXiv:1711.05101

State starts at zero. The rate is an input of the graph: schedules live outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import Ops, Tensor
from onnxprune.errors import OptionError

__all__ = ["SGD", "AdamW", "Optimizer", "Scalars"]

Scalars = tuple[Tensor, ...]
"""What the weights of one rate share: the rate, corrections of the bias."""


class Optimizer(Protocol):
    """One rule of updating weights."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state tensors of a weight, each in its shape, zero at the start."""
        ...

    def scalars(self, op: Ops, rate: Tensor, step: Tensor) -> Scalars:
        """What is computed once a step for all weights of one rate.

        Args:
            op: Writes the nodes.
            rate: The learning rate: one, or of a shape that broadcasts to the weight's.
            step: Which update this is, from 1, an int64 scalar.
        """
        ...

    def update(
        self,
        op: Ops,
        weight: Tensor,
        gradient: Tensor,
        state: Sequence[Tensor],
        scalars: Scalars,
        *,
        decays: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The next value of one weight and of its state.

        Args:
            op: Writes the nodes.
            weight: Its value now.
            gradient: Of the loss, in its shape.
            state: One tensor a slot.
            scalars: What `scalars` gave.
            decays: Whether weight decay applies to it.
        """
        ...


@dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent.

    Attributes:
        momentum: 0 <= m < 1; 0 keeps no state.
        nesterov: Look ahead along the momentum.
        weight_decay: Added to the gradient, times the weight.
    """

    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        """Raises OptionError where a number is out of range."""
        _check("momentum", self.momentum)
        _check_decay(self.weight_decay)
        if self.nesterov and not self.momentum:
            raise OptionError("Nesterov's method needs a momentum above 0")

    @property
    def slots(self) -> tuple[str, ...]:
        """See `Optimizer`."""
        return ("momentum",) if self.momentum else ()

    def scalars(self, op: Ops, rate: Tensor, step: Tensor) -> Scalars:
        """See `Optimizer`."""
        return (rate,)

    def update(
        self,
        op: Ops,
        weight: Tensor,
        gradient: Tensor,
        state: Sequence[Tensor],
        scalars: Scalars,
        *,
        decays: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer`."""
        (rate,) = scalars
        if decays and self.weight_decay:
            gradient = gradient + weight * self.weight_decay
        if not state:
            return weight - gradient * rate, ()
        buffer = state[0] * self.momentum + gradient
        direction = gradient + buffer * self.momentum if self.nesterov else buffer
        return weight - direction * rate, (buffer,)


@dataclass(frozen=True)
class AdamW:
    """Adam with decoupled weight decay.

    Attributes:
        betas: Decay of the first and second moment, each 0 <= beta < 1.
        epsilon: Added to the root of the second moment.
        weight_decay: The share, times the rate, that weights shrink by.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Raises OptionError where a number is out of range."""
        for beta in self.betas:
            _check("a beta of AdamW", beta)
        _check_decay(self.weight_decay)

    @property
    def slots(self) -> tuple[str, ...]:
        """See `Optimizer`."""
        return ("mean", "square")

    def scalars(self, op: Ops, rate: Tensor, step: Tensor) -> Scalars:
        """Rate over the first correction, root of the second, what decay leaves; doubles, as 1 - b2^t cancels."""
        double = ir.DataType.DOUBLE
        t = op.cast(step, double)
        first, second = (
            1.0 - op.Pow(op.constant(np.array(beta), double), t) for beta in self.betas
        )
        size = op.cast(op.cast(rate, double) / first, rate.dtype)
        root = op.cast(op.Sqrt(second), rate.dtype)
        return size, root, 1.0 - rate * self.weight_decay

    def update(
        self,
        op: Ops,
        weight: Tensor,
        gradient: Tensor,
        state: Sequence[Tensor],
        scalars: Scalars,
        *,
        decays: bool,
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer`."""
        (mean, square), (size, root, left), (b1, b2) = state, scalars, self.betas
        if decays and self.weight_decay:
            weight = weight * left
        mean = mean * b1 + gradient * (1.0 - b1)
        square = square * b2 + gradient * gradient * (1.0 - b2)
        divisor = op.Sqrt(square) / root + self.epsilon
        return weight - mean / divisor * size, (mean, square)


def _check(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise OptionError(f"{name} must be at least 0 and below 1, not {value}")


def _check_decay(value: float) -> None:
    if not 0 <= value < float("inf"):
        raise OptionError(f"weight decay must be a finite number of at least 0, not {value}")
