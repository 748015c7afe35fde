"""Losses of sets of indices from sampled gates: what one index costs depends on what has gone before it.

With t_n the derivatives at the gates of a Dim for sample n, removing the set S moves the loss by

    mean_n ( sum over S of t_jn )^2  =  sum over i, j in S of F_ij        F = mean_n t_n t_n'

the square of the *signed* sum over the whole set, as Molchanov et al. (CVPR 2019, equation 8) state it for a group of
weights. The set grows index by index, so two indices that do the same thing are not both taken for free, and two whose
effects cancel go together.

Derivatives tell of small steps. So there are three ways to go on once a share of what was left has gone:

1. as before, with one set from the start to the end;
2. with derivatives taken anew, where the model then stands, and a new set;
3. the same, but the set joins what the outputs have moved by: with r_n that of sample n, the loss is
   mean_n (r_n - sum over S of t_jn)^2, a Gauss-Newton step. Where much has gone, r is large and what it says is mostly
   the model's curvature: on large models this is the worst way, on very small ones the best.

Which is best is found by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.dims import Dim, Keep
from onnxprune.scores.obs import Consumers

__all__ = ["LARGEST_FORM", "STEP", "WAYS", "Forms", "Quadratic", "SignedSums", "Way"]

LARGEST_FORM = 4096
"""Dims with more indices keep the diagonal of F only, to bound the memory."""
STEP = 0.1
"""Of the indices left: when so many have gone, derivatives are taken anew."""

Array = np.ndarray


@dataclass(frozen=True)
class Way:
    """How the loss is known far from where the model began.

    Attributes:
        step: The share of what is left after whose going derivatives are taken anew.
        joins: Whether a new set joins what the outputs have moved by.
    """

    step: float = STEP
    joins: bool = False


WAYS = (Way(), Way(1.0), Way(joins=True))


@dataclass(frozen=True)
class Quadratic:
    """The loss of closing further gates, of each Dim alone.

    Attributes:
        forms: F of each Dim: (dim.size, dim.size), or its diagonal.
        moved: mean_n r_n t_n of each Dim, (dim.size,).
    """

    forms: Mapping[Dim, Array]
    moved: Mapping[Dim, Array]


class Forms:
    """F and mean r t of each Dim, summed sample by sample in float64."""

    def __init__(self, dims: Sequence[Dim]) -> None:
        self.total = {
            dim: np.zeros((dim.size, dim.size) if dim.size <= LARGEST_FORM else dim.size)
            for dim in dims
        }
        self.moved = {dim: np.zeros(dim.size) for dim in dims}
        self.count = 0

    def add(self, derivatives: Mapping[Dim, Array], moved: float = 0.0) -> None:
        """Adds one sample's derivatives, float64, shape (dim.size,) each, and what its outputs have moved by."""
        for dim, t in derivatives.items():
            self.total[dim] += np.outer(t, t) if self.total[dim].ndim == 2 else t**2
            self.moved[dim] += moved * t
        self.count += 1

    def means(self) -> Quadratic:
        """Of all samples."""
        count = max(self.count, 1)
        return Quadratic(
            {dim: total / count for dim, total in self.total.items()},
            {dim: total / count for dim, total in self.moved.items()},
        )


class SignedSums(Consumers):
    """The loss of each index that is left, given those that went.

    Args:
        dims: The Dims.
        sample: The loss of closing further gates where only so much is kept.
        way: How to go on far from the beginning.
    """

    def __init__(
        self, dims: Sequence[Dim], sample: Callable[[Keep], Quadratic], way: Way = WAYS[0]
    ) -> None:
        super().__init__([], {dim: np.zeros(dim.size) for dim in dims})
        self._sample, self._way = sample, way
        self._sampled_at = 0

    @property
    def _is_far(self) -> bool:
        """Whether derivatives are to be taken anew."""
        left = sum(map(len, self.left.values()))
        return not self._sampled_at or left < (1 - self._way.step) * self._sampled_at

    def _here(self) -> None:
        """Takes the derivatives where the model stands, if those known are of too far away."""
        if not self._is_far:
            return
        self.forms: Mapping[Dim, Array] = {}  # makes room for the new ones
        found = self._sample(self.keep())
        self.forms = found.forms
        self.fallback = {
            dim: np.diagonal(form) if form.ndim == 2 else form for dim, form in self.forms.items()
        }
        self.shared = {dim: -moved * self._way.joins for dim, moved in found.moved.items()}
        self._sampled_at = sum(map(len, self.left.values()))

    def losses(self, dim: Dim) -> Array:
        """What the loss gains by each index that is left; shape (len(left[dim]),)."""
        self._here()
        left = self.left[dim]
        return np.asarray(self.fallback[dim][left] + 2 * self.shared[dim][left])

    def cheapest(self, dim: Dim, count: int) -> tuple[Array, float]:
        """The indices that add least to what is gone, and about what all of them together add."""
        losses = self.losses(dim)
        chosen = np.argsort(losses, kind="stable")[:count]
        return self.left[dim][chosen], float(losses[chosen].sum())

    def remove(self, dim: Dim, indices: Array) -> float:
        """Removes indices, and gives back what it cost."""
        self._here()
        form = self.forms[dim]
        loss = float((self.fallback[dim][indices] + 2 * self.shared[dim][indices]).sum())
        if form.ndim == 2:
            inside = form[np.ix_(indices, indices)]
            loss += float(inside.sum() - np.trace(inside))
            self.shared[dim] += form[:, indices].sum(1)
        self._note(dim, indices)
        return loss

    def neighbours(self, dim: Dim) -> set[Dim]:
        """All Dims where derivatives are to be taken anew, else the Dim alone."""
        return set(self.left) if self._is_far else {dim}
