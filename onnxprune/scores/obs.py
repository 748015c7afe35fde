"""Optimal brain surgeon on whole channels: what is lost once the weights that stay have made up for those that go.

Let a contraction compute y = W x with H = Cov(x). Removing the columns B of W that belong to an index, and re-fitting
all others in the least-squares sense, costs exactly

    loss(B) = tr( W_B (H^-1_BB)^-1 W_B' )

and leaves, for the next removal,

    W <- W - W_B (H^-1_BB)^-1 H^-1_B:        H^-1 <- H^-1 - H^-1_:B (H^-1_BB)^-1 H^-1_B:

Source: Hassibi, Stork, "Second order derivatives for network pruning: optimal brain surgeon", NIPS 1992; on blocks,
Kurtic et al., "ZipLM", NeurIPS 2023. Here B is everything that one index of a Dim is to a consumer: the taps of a
channel, the features of a head. A Dim with several consumers sums over them; consumers with several Dims on their input
(a Concat) share one H, so that two Dims cannot both be the other's replacement.

Losses are relative to the variance of y, and weighted by what the model's output feels of an error there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.calibrate import Contraction, Observed, Sums
from onnxprune.dims import Dim, positions

__all__ = ["SHRINKAGE", "Consumer", "Consumers"]

SHRINKAGE = 1e-3
"""Of H towards a multiple of the identity, relative to its mean diagonal element."""
SMALLEST = 1e-12

Array = np.ndarray


class Consumer:
    """A contraction while indices of what it reads, and of what it gives, go one after the other.

    Args:
        seen: The contraction and the moments of its input.
        weight: How much the model's output feels a relative error of 1 in its output.
        dims: The Dims that may lose indices.
    """

    def __init__(self, seen: Observed, weight: float, dims: set[Dim]) -> None:
        each = seen.contraction
        self.contraction, self.weight = each, weight
        self.w = each.matrix(each.view.read())
        covariance = seen.sums.covariance()
        self.inverse = np.linalg.inv(_shrunk(covariance, seen.sums))
        self.energy = max(
            float(np.einsum("gmk,gkl,gml->", self.w, covariance, self.w, optimize=True)), SMALLEST
        )
        self.columns = {dim: _columns(each, dim, each.input_axis, each.taps) for dim in dims}
        self.columns = {dim: found for dim, found in self.columns.items() if found}
        self.rows = {dim: _columns(each, dim, each.output_axis, 1) for dim in dims}
        self.rows = {dim: found for dim, found in self.rows.items() if found}
        self.place = np.arange(self.w.shape[2])

    @property
    def scale(self) -> float:
        """From squared error to loss."""
        return self.weight / self.energy

    def losses(self, dim: Dim, indices: Sequence[int] | Array) -> Array:
        """The loss of removing each index alone, float64, shape (len(indices),)."""
        found = np.zeros(len(indices))
        blocks = [self._alive(self.columns[dim][j]) for j in indices]
        by_size: dict[int, list[int]] = {}
        for k, block in enumerate(blocks):
            by_size.setdefault(len(block), []).append(k)
        for size, which in by_size.items():
            if not size:
                continue
            b = np.stack([blocks[k] for k in which])
            for w, inverse in zip(self.w, self.inverse, strict=True):
                if size == 1:
                    error = (w[:, b[:, 0]] ** 2).sum(0) / inverse[b[:, 0], b[:, 0]]
                else:
                    middle = np.linalg.inv(inverse[b[:, :, None], b[:, None, :]])
                    part = w[:, b].transpose(1, 0, 2)  # (indices, M, size)
                    error = ((part @ middle) * part).sum((1, 2))
                found[which] += error
        return found * self.scale

    def remove(self, dim: Dim, indices: Sequence[int] | Array) -> float:
        """Takes indices out, lets the others make up for them, and says what it cost."""
        loss = self._remove_inputs(dim, indices) if dim in self.columns else 0.0
        if dim in self.rows:
            gone = np.concatenate([self.rows[dim][j] for j in indices])
            each = self.w.shape[1]
            for g in range(len(self.w)):
                mine = gone[gone // each == g] % each
                self.w[g, mine] = 0
        return loss

    def _alive(self, columns: Array) -> Array:
        """Where columns are now; those that went with another Dim of the same axis are left out."""
        place = self.place[columns]
        return np.asarray(place[place >= 0])

    def _remove_inputs(self, dim: Dim, indices: Sequence[int] | Array) -> float:
        b = self._alive(np.concatenate([self.columns[dim][j] for j in indices]))
        if not len(b):
            return 0.0
        stay = np.delete(np.arange(self.w.shape[2]), b)
        error, w_new, inverse_new = 0.0, [], []
        for w, inverse in zip(self.w, self.inverse, strict=True):
            middle = np.linalg.inv(inverse[np.ix_(b, b)])
            part = w[:, b]
            change = part @ middle
            error += float((change * part).sum())
            across = inverse[np.ix_(b, stay)]
            w_new.append(w[:, stay] - change @ across)
            inverse_new.append(inverse[np.ix_(stay, stay)] - across.T @ (middle @ across))
        self.w, self.inverse = np.stack(w_new), np.stack(inverse_new)
        place = np.full(len(self.place), -1)
        alive = np.flatnonzero(self.place >= 0)
        alive = alive[~np.isin(self.place[alive], b)]
        place[alive] = np.arange(len(alive))
        self.place = place
        return max(error, 0.0) * self.scale


def _shrunk(covariance: Array, sums: Sums) -> Array:
    """The covariance with a ridge, so that it can be inverted."""
    k = covariance.shape[-1]
    mean = np.trace(covariance, axis1=1, axis2=2) / k
    ridge = np.maximum(mean * SHRINKAGE * max(1.0, 10 * k / max(sums.count, 1)), SMALLEST)
    shrunk: Array = covariance + ridge[:, None, None] * np.eye(k)
    return shrunk


def _columns(each: Contraction, dim: Dim, axis: object, taps: int) -> dict[int, Array]:
    """For every index of a Dim the positions of an axis (times taps) that belong to it; empty if there are none."""
    found: dict[int, Array] = {}
    for row in positions(axis, dim):  # type: ignore[arg-type]
        for j in range(dim.size):
            where = np.flatnonzero(row == j)
            if len(where):
                columns = (where[:, None] * taps + np.arange(taps)).reshape(-1)
                found[j] = np.union1d(found[j], columns) if j in found else columns
    return found


class Consumers:
    """All consumers of all Dims, and what each index that is left would cost."""

    def __init__(self, consumers: Sequence[Consumer], fallback: Mapping[Dim, Array]) -> None:
        self.consumers = consumers
        self.fallback = fallback
        self.left: dict[Dim, Array] = {dim: np.arange(dim.size) for dim in fallback}
        self.of = {dim: [c for c in consumers if dim in c.columns] for dim in fallback}
        self.touched = {
            dim: [c for c in consumers if dim in c.columns or dim in c.rows] for dim in fallback
        }

    def losses(self, dim: Dim) -> Array:
        """The loss of removing each index that is left, alone; shape (len(left[dim]),)."""
        left = self.left[dim]
        if not self.of[dim]:
            return np.asarray(self.fallback[dim][left])
        total = np.zeros(len(left))
        for consumer in self.of[dim]:
            total += consumer.losses(dim, left)
        return total

    def remove(self, dim: Dim, indices: Array) -> float:
        """Removes indices, and gives back what it cost."""
        loss = 0.0 if self.of[dim] else float(self.fallback[dim][indices].sum())
        for consumer in self.touched[dim]:
            loss += consumer.remove(dim, indices)
        self.left[dim] = np.setdiff1d(self.left[dim], indices)
        return loss

    def neighbours(self, dim: Dim) -> set[Dim]:
        """The Dims whose losses change when this one loses indices."""
        found = {dim}
        for consumer in self.touched[dim]:
            found |= set(consumer.columns) & set(self.fallback)
        return found

    def keep(self) -> dict[Dim, Array]:
        """What is left, as masks, of the Dims that lost something."""
        found = {}
        for dim, left in self.left.items():
            if len(left) < dim.size:
                found[dim] = np.isin(np.arange(dim.size), left)
        return found
