"""Losses of sets of indices from sampled gates: what one index costs depends on what has gone before it.

With t_n the derivatives at the gates of a Dim for sample n, removing the set S moves the loss by

    mean_n ( sum over S of t_jn )^2  =  sum over i, j in S of F_ij        F = mean_n t_n t_n'

the square of the *signed* sum over the whole set, as Molchanov et al. (CVPR 2019, equation 8) state it for a group of
weights. The set grows index by index, so two indices that do the same thing are not both taken for free, and two whose
effects cancel go together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.dims import Dim
from onnxprune.scores.obs import Consumers

__all__ = ["LARGEST_FORM", "Forms", "SignedSums"]

LARGEST_FORM = 4096
"""Dims with more indices keep the diagonal of F only, to bound the memory."""

Array = np.ndarray


class Forms:
    """F of each Dim, summed sample by sample in float64."""

    def __init__(self, dims: Sequence[Dim]) -> None:
        self.total = {
            dim: np.zeros((dim.size, dim.size) if dim.size <= LARGEST_FORM else dim.size)
            for dim in dims
        }
        self.count = 0

    def add(self, derivatives: Mapping[Dim, Array]) -> None:
        """Adds one sample's derivatives, float64, shape (dim.size,) each."""
        for dim, t in derivatives.items():
            self.total[dim] += np.outer(t, t) if self.total[dim].ndim == 2 else t**2
        self.count += 1

    def means(self) -> dict[Dim, Array]:
        """F of each Dim: (dim.size, dim.size), or its diagonal."""
        return {dim: total / max(self.count, 1) for dim, total in self.total.items()}


class SignedSums(Consumers):
    """The loss of each index that is left, given those that went.

    Args:
        forms: F of each Dim.
    """

    def __init__(self, forms: Mapping[Dim, Array]) -> None:
        diagonals = {dim: np.diagonal(f) if f.ndim == 2 else f for dim, f in forms.items()}
        super().__init__([], diagonals)
        self.forms = forms
        self.shared = {dim: np.zeros(dim.size) for dim in forms}

    def losses(self, dim: Dim) -> Array:
        """What (sum over all that is gone) gains by each index that is left; shape (len(left[dim]),)."""
        left = self.left[dim]
        return np.asarray(self.fallback[dim][left] + 2 * self.shared[dim][left])

    def cheapest(self, dim: Dim, count: int) -> tuple[Array, float]:
        """The indices that add least to what is gone, and about what all of them together add."""
        losses = self.losses(dim)
        chosen = np.argsort(losses, kind="stable")[:count]
        return self.left[dim][chosen], float(losses[chosen].sum())

    def remove(self, dim: Dim, indices: Array) -> float:
        """Removes indices, and gives back what it cost."""
        form = self.forms[dim]
        loss = float((self.fallback[dim][indices] + 2 * self.shared[dim][indices]).sum())
        if form.ndim == 2:
            inside = form[np.ix_(indices, indices)]
            loss += float(inside.sum() - np.trace(inside))
            self.shared[dim] += form[:, indices].sum(1)
        self.left[dim] = np.setdiff1d(self.left[dim], indices)
        return loss
