"""Ridge regression towards the weights there are, from sums, and the lambda that does best on samples not fitted on."""

from __future__ import annotations

import numpy as np

from onnxprune.calibrate.moments import Sums

__all__ = ["Errors", "Ridge", "best_ridge", "shift"]

LAMBDAS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Shrinkage towards the weights there are, tried in turn."""

Array = np.ndarray


class Errors:
    """What weights miss the targets of some sums by."""

    def __init__(self, sums: Sums) -> None:
        self.covariance, self.cross = sums.covariance(), sums.cross()
        self.variance = float(sums.variance().sum())

    def __call__(self, w: Array) -> float:
        """Squared error with the best bias, relative to the variance of the target."""
        linear, square = float((w * self.cross).sum()), float(((w @ self.covariance) * w).sum())
        return (self.variance - 2 * linear + square) / max(self.variance, 1e-30)


class Ridge:
    """The regression towards some weights.

    Args:
        covariance: Of x, (G, K, K).
        w0: The weights, (G, M, K).
        shrinkage: Lambda.
    """

    def __init__(self, covariance: Array, w0: Array, shrinkage: float) -> None:
        self.shrinkage = shrinkage
        penalty = _penalty(covariance) * shrinkage
        self._matrix: Array = covariance + penalty[:, :, None] * np.eye(covariance.shape[-1])
        self._inverted = False
        self._towards = w0 * penalty[:, None, :]

    def invert(self) -> None:
        """Makes it ready for many targets: that takes as long as three fits, and each takes next to nothing then."""
        self._matrix, self._inverted = np.linalg.inv(self._matrix), True

    def fit(self, cross: Array) -> Array:
        """The weights that do best where x and the targets have this covariance: both (G, M, K)."""
        right = cross + self._towards
        if self._inverted:
            found: Array = right @ self._matrix
        else:
            found = np.linalg.solve(self._matrix, right.transpose(0, 2, 1)).transpose(0, 2, 1)
        return found


def shift(sums: Sums, w: Array) -> Array:
    """The best bias with some weights: (G, M)."""
    return np.asarray(sums.mean_t() - np.einsum("gmk,gk->gm", w, sums.mean()))


def best_ridge(seen: Errors, unseen: Errors, w0: Array) -> Ridge:
    """The regression with the lambda that does best on samples that were not fitted on."""
    missed: dict[int, float] = {}
    found: dict[int, Ridge] = {}

    def miss(k: int) -> float:
        if k not in missed:
            ridge = Ridge(seen.covariance, w0, LAMBDAS[k])
            missed[k] = unseen(ridge.fit(seen.cross))
            if missed[k] == min(missed.values()):
                found.clear()  # of large layers one is enough to hold
                found[k] = ridge
        return missed[k]

    best = len(LAMBDAS) // 2
    while True:  # the error has one minimum along lambda
        around = range(max(best - 1, 0), min(best + 2, len(LAMBDAS)))
        lowest = min(around, key=miss)
        if lowest == best:
            return found[best] if best in found else Ridge(seen.covariance, w0, LAMBDAS[best])
        best = lowest


def _penalty(covariance: Array) -> Array:
    """What a shrinkage of 1 adds: the variance of each input, and a little of their mean: (G, K)."""
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    mean = diagonal.mean()
    found: Array = np.maximum(diagonal, 0) * 0.5 + mean * 0.5 + 1e-12
    return found
