"""What a criterion is, and the registry of them.

A criterion gives every element of a tensor a saliency >= 0: how much it matters. Pooled over a set G of elements (a
block, a channel with all its tensors) the saliency is

    s(G) = ( sum over G of |s_e|^p )^(1/p)

with the criterion's power p: 2 makes `magnitude` the L2 norm, 1 makes `l1` the L1 norm. The sum inside, the energy,
adds up over tensors, so a caller may stream them and take the root at the end.

Some criteria score whole indices of Dims instead (`channel_criterion`), others only single weights.

A criterion sees one tensor at a time and keeps nothing, so scoring needs memory for the largest tensor only. One that
needs data reads what calibration gathered from `Context.statistics` under the tensor's name; it is a few lines, e.g.

    @criterion("taylor", needs_data=True, summary="|w dL/dw|", statistic="gradient_mean")
    def taylor(name, values, context):
        return np.abs(values) * context.statistic("gradient_mean", name)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxprune.errors import OnnxPruneError, OptionError

if TYPE_CHECKING:
    from onnxprune.calibrate.activations import Activations
    from onnxprune.dims import Dim, Tracing

__all__ = [
    "Array",
    "Context",
    "Criterion",
    "LossKind",
    "Ranked",
    "channel_criterion",
    "criterion",
    "criterion_names",
    "get_criterion",
]

Array = npt.NDArray[Any]
LossKind = Literal["labels", "predictions", "outputs"]
Ranked = Literal["channels", "weights", "layers"]
Scored = Literal["both"] | Ranked
Element = Callable[[str, Array, "Context"], Array]
Channels = Callable[["Tracing", "set[Dim]", "Sequence[Activations]"], "dict[Dim, Array]"]


@dataclass(frozen=True)
class Context:
    """What a criterion may know besides the weights.

    Attributes:
        seed: Of the criteria that draw numbers.
        statistics: By kind (`gradient_mean`, ...) then by tensor name, arrays that fit the tensor's shape.
    """

    seed: int = 0
    statistics: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)

    def statistic(self, kind: str, name: str) -> Array:
        """The statistic of one tensor.

        Raises:
            OnnxPruneError: Calibration did not gather it.
        """
        try:
            return self.statistics[kind][name]
        except KeyError:
            raise OnnxPruneError(f"no {kind} was gathered for the tensor {name!r}") from None


@dataclass(frozen=True)
class Criterion:
    """A named measure of how much each element of a tensor matters.

    Attributes:
        name: As on the command line.
        summary: One line for the help text.
        element: From tensor name, float values and context to saliencies of the same shape.
        power: p of the pooling rule in the module docstring.
        needs_data: Whether `Context.statistics` must be filled from a data set.
        local: Whether the saliency of an element depends on its value alone.
        statistic: Which kind of `Context.statistics` it reads; empty if none.
        signed: Whether whole indices are scored by signed sums over what they carry, see `onnxprune.sampling`.
        loss: What gradients are of: the `labels` where there are any, else answers drawn from the model's own
            `predictions`; those always; or its `outputs`.
        scores: Whether it ranks whole `channels` only, single `weights` only, `both` of these, or `layers`.
        channels: From a tracing, some of its Dims and what was seen of activations (nothing, where it needs no data)
            to the saliency of every index; Dims that are left out stay whole. None: by `element`.
    """

    name: str
    summary: str
    element: Element
    power: int = 1
    needs_data: bool = False
    local: bool = False
    statistic: str = ""
    signed: bool = False
    loss: LossKind = "labels"
    scores: Scored = "both"
    channels: Channels | None = None

    @property
    def on_gradients(self) -> bool:
        """Whether its statistic is one of sampled gradients."""
        return self.statistic.startswith("gradient")

    def ranks(self, what: Ranked) -> bool:
        """Whether it says which of these go."""
        return self.scores == what or (self.scores == "both" and what != "layers")

    def saliency(self, name: str, values: Array, context: Context | None = None) -> Array:
        """Saliency of every element of one tensor.

        Args:
            name: The tensor's name in the model.
            values: Its values, real numbers of any float type, any shape.
            context: Seed and statistics.

        Returns:
            float32 (float64 for float64 values), the shape of `values`, nothing below 0.

        Raises:
            OnnxPruneError: The values or the saliencies are NaN.
        """
        wide = np.float64 if values.dtype == np.float64 else np.float32
        result = self.element(name, values.astype(wide, copy=False), context or Context())
        if result.size and np.isnan(result.min()):
            raise OnnxPruneError(
                f"the tensor {name!r} has NaN values: repair or --exclude it, nothing can rank them"
            )
        return result.astype(wide, copy=False)

    def energy(self, saliency: Array, axes: tuple[int, ...] | None = None) -> Array:
        """Sum over `axes` (None: all) of saliency^p, in float64; add these over tensors, then `norm`."""
        return np.asarray(np.sum(saliency.astype(np.float64) ** self.power, axis=axes))

    def energies(
        self, name: str, values: Array, axes: Iterable[int], context: Context | None = None
    ) -> dict[int, Array]:
        """For each axis of a tensor, the energy of each of its indices, summed over all other axes.

        Where the saliency of an element depends on nothing else, slabs of at most 16 MiB are scored one after the
        other, so that a large tensor needs no copy. A slab is summed in its own precision, slabs in float64.

        Returns:
            An array of shape (n,), float64, for each axis.

        Raises:
            OnnxPruneError: The values or the saliencies are NaN.
        """
        shape = values.shape
        total = {axis: np.zeros(shape[axis]) for axis in axes}
        rows = (
            len(values) if not self.local else max(1, _SLAB * len(values) // max(1, values.nbytes))
        )
        for start in range(0, len(values), max(1, rows)):
            saliency = self.saliency(name, values[start : start + rows], context)
            energy = saliency if self.power == 1 else saliency**self.power
            for axis, found in total.items():
                where = slice(start, start + rows) if axis == 0 else slice(None)
                found[where] += _sum_along(energy, axis)
        return total

    def norm(self, energy: Array) -> Array:
        """The pooled saliency of summed energies."""
        return np.asarray(energy if self.power == 1 else energy ** (1 / self.power))


def _sum_along(array: Array, axis: int) -> Array:
    """The sum over all axes but one."""
    outer, n = math.prod(array.shape[:axis]), array.shape[axis]
    inner = math.prod(array.shape[axis + 1 :])
    if inner > 1:
        array = array.reshape(-1, inner).sum(axis=1)
    return np.asarray(array.reshape(outer, n).sum(axis=0))


_SLAB = 1 << 24
_CRITERIA: dict[str, Criterion] = {}


def criterion(
    name: str,
    *,
    summary: str,
    power: int = 1,
    needs_data: bool = False,
    local: bool = False,
    statistic: str = "",
    signed: bool = False,
    loss: LossKind = "labels",
    scores: Scored = "both",
) -> Callable[[Element], Element]:
    """Decorator that registers an element function as the criterion `name`.

    Raises:
        ValueError: The name is taken.
    """

    def register(element: Element) -> Element:
        _register(
            Criterion(
                name, summary, element, power, needs_data, local, statistic, signed, loss, scores
            )
        )
        return element

    return register


def channel_criterion(
    name: str, *, summary: str, needs_data: bool = False
) -> Callable[[Channels], Channels]:
    """Decorator that registers a function that scores whole indices of Dims.

    Raises:
        ValueError: The name is taken.
    """

    def element(_name: str, _values: Array, _context: Context) -> Array:
        raise OptionError(f"the criterion {name} scores channels, not single weights")

    def register(channels: Channels) -> Channels:
        _register(
            Criterion(
                name, summary, element, needs_data=needs_data, scores="channels", channels=channels
            )
        )
        return channels

    return register


def _register(made: Criterion) -> None:
    if made.name in _CRITERIA:
        raise ValueError(f"criterion {made.name!r} is registered twice")
    _CRITERIA[made.name] = made


def criterion_names() -> tuple[str, ...]:
    """The registered names, in order of registration."""
    return tuple(_CRITERIA)


def get_criterion(name: str) -> Criterion:
    """The criterion of that name.

    Raises:
        OptionError: There is none.
    """
    if name not in _CRITERIA:
        raise OptionError(f"unknown criterion {name!r}: choose from {', '.join(_CRITERIA)}")
    return _CRITERIA[name]
