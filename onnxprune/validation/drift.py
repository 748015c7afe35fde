"""Drift: how far the outputs of one model are from those of another on the same inputs.

For each output, over all samples: the relative error |b - a| / |a| in the Frobenius norm, the cosine
between the two, the largest difference, and how often they agree: on the largest entry of the last
axis for floats (top-1), on the value itself for everything else.

Sums are kept, not outputs, so memory does not grow with the number of samples. An output whose size depends on what is
in the data (as many boxes as were found) is compared where it comes out as large in both.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.runtime.sessions import run

__all__ = ["Drift", "drift", "drift_between", "matched_outputs"]


@dataclass(frozen=True)
class Drift:
    """Distance of one output of the second model from that of the first.

    Attributes:
        output: Name of the output, in the first model.
        relative_error: |b - a| / |a|; infinite where one has numbers and the other has not, or is zero, NaN
            for outputs that are not numbers.
        cosine: Of the angle between the two outputs; 1 is the same direction, NaN as above.
        max_abs: Largest absolute difference of any element.
        agreement: Share of equal decisions, 0 to 1; NaN where there are none: of single numbers, or no elements.
        other_size: For how many batches it came out in another size, which the data decide.
    """

    output: str
    relative_error: float
    cosine: float
    max_abs: float
    agreement: float
    other_size: int = 0

    def to_dict(self) -> dict[str, object]:
        """The figures as plain data; what is not finite becomes None."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


def drift(
    before: ort.InferenceSession,
    after: ort.InferenceSession,
    feeds: Iterable[Mapping[str, np.ndarray]],
) -> list[Drift]:
    """Runs both models on the same inputs and compares every output.

    Args:
        before: Session of the first model.
        after: Session of the second, with the same inputs and as many outputs.
        feeds: Inputs, one mapping a batch.

    Returns:
        One entry an output, in the order of the first model.

    Raises:
        ModelError: The interfaces differ, an output has another shape, or a model does not run.
    """
    inputs = [{value.name: value.type for value in s.get_inputs()} for s in (before, after)]
    if inputs[0] != inputs[1]:
        raise ModelError(
            f"the models take different inputs and cannot be compared: "
            f"{_listed(inputs[0])} against {_listed(inputs[1])}"
        )
    first, second = ([value.name for value in s.get_outputs()] for s in (before, after))
    order = matched_outputs(first, second)
    return drift_between(
        first,
        ((run(before, feed, first), run(after, feed, order)) for feed in feeds),
        [value.shape for value in before.get_outputs()],
    )


def drift_between(
    names: Sequence[str],
    results: Iterable[tuple[Sequence[Any], Sequence[Any]]],
    declared: Sequence[Sequence[Any]],
) -> list[Drift]:
    """`drift` of outputs that were computed already.

    Args:
        names: Names of the outputs.
        results: For each batch the outputs of the first model and those of the second, as in `names`.
        declared: The sizes of each output, as far as they are fixed; others are no integers.

    Raises:
        ModelError: An output has another shape in the second model.
    """
    totals = [_Total(name, sizes) for name, sizes in zip(names, declared, strict=True)]
    for first, second in results:
        for total, a, b in zip(totals, first, second, strict=True):
            total.add(a, b)
    return [total.result() for total in totals]


def matched_outputs(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """The second model's outputs in the order of the first's: by name where they are the same, else by position.

    Raises:
        ModelError: One has more outputs than the other.
    """
    if set(first) == set(second):
        return list(first)
    if len(first) != len(second):
        raise ModelError(
            f"the models have {len(first)} and {len(second)} outputs and cannot be compared"
        )
    return list(second)


def _listed(inputs: Mapping[str, str]) -> str:
    return ", ".join(f"{name!r} {kind}" for name, kind in inputs.items()) or "none"


class _Total:
    """Running sums of one output over the batches."""

    def __init__(self, name: str, declared: Sequence[Any]) -> None:
        self.name, self.declared = name, declared
        self.other_size = self.same_size = 0
        self.numeric = True
        self.squares_a = self.squares_b = self.product = self.squares_difference = 0.0
        self.largest = 0.0
        self.agreed = self.decisions = 0

    def add(self, a: Any, b: Any) -> None:
        a, b = _array(a), _array(b)
        if a.shape != b.shape:
            if not self._may_differ(a.shape, b.shape):
                raise ModelError(
                    f"output {self.name!r} has shape {a.shape} in one, {b.shape} in other"
                )
            self.other_size += 1
            return
        self.same_size += 1
        self._add_decisions(a, b)
        self.numeric = self.numeric and a.dtype.kind not in "OUS" and b.dtype.kind not in "OUS"
        if not self.numeric or not a.size:
            return
        x, y = (np.asarray(v, np.float64).reshape(-1) for v in (a, b))
        same = (x == y) | (np.isnan(x) & np.isnan(y))  # infinities of the same sign are no drift
        keep = np.isfinite(x) & np.isfinite(y)
        if not np.all(same | keep):
            self.squares_difference = self.largest = math.inf
        x, y = x[keep], y[keep]
        if not x.size:
            return
        self.squares_a += float(x @ x)
        self.squares_b += float(y @ y)
        self.product += float(x @ y)
        self.squares_difference += float((y - x) @ (y - x))
        self.largest = max(self.largest, float(np.abs(y - x).max()))

    def _may_differ(self, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
        """Whether two shapes differ only in sizes that the model leaves open."""
        if len(a) != len(b) or (self.declared and len(self.declared) != len(a)):
            return False
        fixed = self.declared or [None] * len(a)
        return not any(isinstance(n, int) and x != y for n, x, y in zip(fixed, a, b, strict=True))

    def _add_decisions(self, a: np.ndarray, b: np.ndarray) -> None:
        if a.dtype.kind in "fV" and a.ndim > 2 and a.shape[2:] == (1,) * (a.ndim - 2):
            a, b = (v.reshape(v.shape[:2]) for v in (a, b))  # classes of one place
        if a.dtype.kind in "fV":
            if not a.ndim or a.shape[-1] < 2 or not a.size:
                return  # single numbers choose nothing
            a, b = a.argmax(-1), b.argmax(-1)
        self.agreed += int(np.sum(a == b))
        self.decisions += a.size

    def result(self) -> Drift:
        agreement = self.agreed / self.decisions if self.decisions else math.nan
        if not self.numeric or (self.other_size and not self.same_size):
            nan = math.nan
            return Drift(self.name, nan, nan, nan, agreement, self.other_size)
        norm = math.sqrt(self.squares_a)
        error = math.sqrt(self.squares_difference)
        relative = error / norm if norm else (0.0 if not error else math.inf)
        both = math.sqrt(self.squares_a * self.squares_b)
        cosine = self.product / both if both else (1.0 if self.squares_a == self.squares_b else 0.0)
        return Drift(self.name, relative, cosine, self.largest, agreement, self.other_size)


def _array(value: Any) -> np.ndarray:
    """An output as an array; sequences, also of maps, by their contents in order."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, Mapping):
        return np.asarray([value[key] for key in sorted(value)])
    if isinstance(value, list):
        parts = [_array(part).reshape(-1) for part in value]
        return np.concatenate(parts) if parts else np.empty(0)
    return np.asarray(value)
