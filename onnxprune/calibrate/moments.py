"""Second moments of what a contraction reads and of what it should give.

Products of a batch are float32, their sums float64; batches only say in what order they are added.
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
    """Sums over positions of x, t, x x', t x' and t t: (G, K), (G, M), (G, K, K), (G, M, K), (G, M).

    Of both less a centre near their means: (G, K) and (G, M). Products of float32 rows are rounded relative to the
    variances then.
    """

    samples: int = 0
    count: int = 0
    centre: Array = field(default_factory=lambda: np.zeros(()))
    centre_t: Array = field(default_factory=lambda: np.zeros(()))
    x: Array = field(default_factory=lambda: np.zeros(()))
    t: Array = field(default_factory=lambda: np.zeros(()))
    xx: Array = field(default_factory=lambda: np.zeros(()))
    tx: Array = field(default_factory=lambda: np.zeros(()))
    tt: Array = field(default_factory=lambda: np.zeros(()))

    def add(self, x: Array, t: Array | None) -> None:
        """Adds rows: x (G, P, K), t (G, P, M)."""
        if not self.count:
            self.centre = x.mean(1)
            self.centre_t = np.zeros(()) if t is None else t.mean(1)
        self.count += x.shape[1]
        rows = x - self.centre[:, None]
        self.x = self.x + rows.sum(1, dtype=np.float64)
        if not self.xx.ndim:
            self.xx = np.zeros((len(x), x.shape[2], x.shape[2]))
        _add_gram(self.xx, rows)
        if t is not None:
            self._add_targets(rows, t)

    def add_targets(self, x: Array, t: Array) -> None:
        """Adds targets of rows that have been added."""
        self._add_targets(x - self.centre[:, None], t)

    def _add_targets(self, rows: Array, t: Array) -> None:
        t = t - self.centre_t[:, None]
        self.t = self.t + t.sum(1, dtype=np.float64)
        self.tt = self.tt + np.square(t, dtype=np.float64).sum(1)
        self.tx = self.tx + t.transpose(0, 2, 1) @ rows

    def untold(self) -> Sums:
        """The same without targets."""
        nothing = np.zeros(())
        return replace(self, t=nothing, tx=nothing, tt=nothing)

    @property
    def independent(self) -> int:
        """How many independent rows these are worth: the positions of one sample are much alike."""
        return min(self.count, SAMPLE_WORTH * max(self.samples, 1))

    def raw(self) -> Sums:
        """The sums as if the means were zero."""
        x, t, n = self.centre.astype(np.float64), self.centre_t.astype(np.float64), self.count
        both = _outer(x, self.x)
        return replace(
            self,
            centre=0 * x,
            centre_t=0 * t,
            x=0 * self.x,
            t=0 * self.t,
            xx=self.xx + both + both.swapaxes(1, 2) + n * _outer(x, x),
            tx=self.tx + _outer(t, self.x + n * x) + _outer(self.t, x) if self.tx.ndim else self.tx,
            tt=self.tt + 2 * t * self.t + n * t**2,
        )

    def mean(self) -> Array:
        """Of x: (G, K)."""
        return np.asarray(self.centre + self.x / self.count)

    def mean_t(self) -> Array:
        """Of t: (G, M)."""
        return np.asarray(self.centre_t + self.t / self.count)

    def covariance(self) -> Array:
        """Of x: (G, K, K)."""
        mean = self.x / self.count
        return np.asarray(self.xx / self.count - _outer(mean, mean))

    def cross(self) -> Array:
        """Covariance of t with x: (G, M, K)."""
        return np.asarray(self.tx / self.count - _outer(self.t / self.count, self.x / self.count))

    def variance(self) -> Array:
        """Of t: (G, M)."""
        return np.asarray(self.tt / self.count - (self.t / self.count) ** 2)


def _outer(first: Array, second: Array) -> Array:
    """(G, M) and (G, K) to (G, M, K)."""
    return np.asarray(first[:, :, None] * second[:, None, :])


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
