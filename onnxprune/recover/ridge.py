"""Ridge regression towards the weights there are, from sums, and the lambda that does best on samples not fitted on."""

from __future__ import annotations

import numpy as np

from onnxprune.calibrate.moments import Sums

__all__ = ["Ridge", "best_shrinkage", "error", "shift"]

LAMBDAS = (1e-4, 1e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
"""Shrinkage towards the weights there are, tried in turn."""

Array = np.ndarray


class Ridge:
    """The regression towards some weights, factored once for many targets.

    Args:
        sums: Of x.
        w0: The weights, (G, M, K).
        shrinkage: Lambda.
    """

    def __init__(self, sums: Sums, w0: Array, shrinkage: float) -> None:
        covariance = sums.covariance()
        penalty = _penalty(covariance) * shrinkage
        self._inverse = np.linalg.inv(
            covariance + penalty[:, :, None] * np.eye(covariance.shape[-1])
        )
        self._towards = w0 * penalty[:, None, :]

    def fit(self, sums: Sums) -> Array:
        """The weights that do best with the targets of some sums, (G, M, K)."""
        found: Array = (sums.cross() + self._towards) @ self._inverse
        return found


def shift(sums: Sums, w: Array) -> Array:
    """The best bias with some weights: (G, M)."""
    found: Array = (sums.t - np.einsum("gmk,gk->gm", w, sums.x)) / sums.count
    return found


def error(sums: Sums, w: Array) -> float:
    """Squared error of w with the best bias, relative to the variance of the target."""
    a, b = sums.covariance(), sums.cross()
    variance = float((sums.tt / sums.count - (sums.t / sums.count) ** 2).sum())
    squares = variance - 2 * float((w * b).sum()) + float(((w @ a) * w).sum())
    return squares / max(variance, 1e-30)


def best_shrinkage(seen: Sums, unseen: Sums, w0: Array) -> float:
    """The lambda that does best on samples that were not fitted on."""
    known: dict[int, float] = {}

    def miss(k: int) -> float:
        if k not in known:
            known[k] = error(unseen, Ridge(seen, w0, LAMBDAS[k]).fit(seen))
        return known[k]

    best = len(LAMBDAS) // 2
    while True:  # the error has one minimum along lambda
        around = range(max(best - 1, 0), min(best + 2, len(LAMBDAS)))
        lowest = min(around, key=miss)
        if lowest == best:
            return LAMBDAS[best]
        best = lowest


def _penalty(covariance: Array) -> Array:
    """What a shrinkage of 1 adds: the variance of each input, and a little of their mean: (G, K)."""
    diagonal = np.diagonal(covariance, axis1=1, axis2=2)
    mean = diagonal.mean()
    found: Array = np.maximum(diagonal, 0) * 0.5 + mean * 0.5 + 1e-12
    return found
