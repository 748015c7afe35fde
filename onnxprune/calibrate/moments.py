"""Second moments of what a contraction reads and of what it should give.

Sums are float64; batches only say in what order they are added.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from onnxprune.calibrate.contraction import Contraction

__all__ = ["Sums", "positions_seen", "rows_looked_at"]

ROWS_PER_COLUMN, FEWER_PER_COLUMN = 12, 4
"""Positions sampled for each column of W, over all samples; more tell nothing new. Of very wide layers, at least."""
FEWEST_ROWS, MANY_ROWS = 4096, 24576
"""Positions sampled at least, where there are so many; and what is enough even for very wide layers."""

SAMPLE_WORTH = 16
"""Independent rows that the positions of one sample are worth at most."""
FEW_GROUPS = 8

Array = np.ndarray


@dataclass
class Sums:
    """Sums over positions of x, t, x x', t x' and t t: (G, K), (G, M), (G, K, K), (G, M, K), (G, M)."""

    count: int = 0
    samples: int = 0
    x: Array = field(default_factory=lambda: np.zeros(()))
    t: Array = field(default_factory=lambda: np.zeros(()))
    xx: Array = field(default_factory=lambda: np.zeros(()))
    tx: Array = field(default_factory=lambda: np.zeros(()))
    tt: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, x: Array, t: Array | None) -> None:
        """Adds rows: x (G, P, K), t (G, P, M)."""
        wide = x.astype(np.float64)
        self.count += x.shape[1]
        self.x = self.x + wide.sum(1)
        if not self.xx.ndim:
            self.xx = np.zeros((len(x), x.shape[2], x.shape[2]))
        _add_gram(self.xx, wide)
        if t is not None:
            wide_t = t.astype(np.float64)
            self.t = self.t + wide_t.sum(1)
            self.tt = self.tt + (wide_t**2).sum(1)
            self.tx = self.tx + wide_t.transpose(0, 2, 1) @ wide

    @property
    def independent(self) -> int:
        """How many independent rows these are worth: the positions of one sample are much alike."""
        return min(self.count, SAMPLE_WORTH * max(self.samples, 1))

    def __add__(self, other: Sums) -> Sums:
        pairs = (
            (getattr(self, name), getattr(other, name)) for name in ("x", "t", "xx", "tx", "tt")
        )
        counts = (self.count + other.count, self.samples + other.samples)
        return Sums(*counts, *(a + b for a, b in pairs))

    def raw(self) -> Sums:
        """The sums as if the means were zero."""
        return replace(self, x=self.x * 0, t=self.t * 0)

    def covariance(self) -> Array:
        """Of x: (G, K, K)."""
        mean = self.x / self.count
        found: Array = self.xx / self.count - mean[:, :, None] * mean[:, None, :]
        return found

    def cross(self) -> Array:
        """Covariance of t with x: (G, M, K)."""
        found: Array = (
            self.tx / self.count
            - (self.t / self.count)[:, :, None] * (self.x / self.count)[:, None, :]
        )
        return found


def _add_gram(total: Array, rows: Array) -> None:
    """Adds the product x' x of every group; BLAS does half the work where it sees that both are one matrix."""
    if len(rows) > FEW_GROUPS:
        total += np.einsum("gpk,gpl->gkl", rows, rows, optimize=True)
        return
    for group, each in zip(total, rows, strict=True):
        group += each.T @ each


def rows_looked_at(columns: int) -> int:
    """Positions sampled for a layer of so many columns, over all samples, where there are as many."""
    return max(min(ROWS_PER_COLUMN * columns, MANY_ROWS), FEWER_PER_COLUMN * columns, FEWEST_ROWS)


def positions_seen(
    each: Contraction, columns: int, samples: int, positions: int, seed: int
) -> Array | None:
    """Which positions of every sample are looked at: the same for all, drawn once; None for all of them."""
    wanted = -(-rows_looked_at(columns) // samples)
    if wanted >= positions:
        return None
    name = sum(map(ord, each.node.outputs[0].name or ""))
    return np.sort(np.random.default_rng((seed, name)).choice(positions, wanted, replace=False))
