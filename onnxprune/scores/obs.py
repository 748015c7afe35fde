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

Errors are relative to the variance of y; a `Curve` says what loss of the model's outputs an error is worth.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Observed
from onnxprune.dims import Axis, Dim, leaves, positions
from onnxprune.runtime.shelf import Kept, Shelf

__all__ = ["SHRINKAGE", "Consumer", "Consumers", "Curve", "Fitted", "shrunk"]

SHRINKAGE = 1e-3
"""Of H towards a multiple of the identity, relative to its mean diagonal element."""
SMALLEST = 1e-12

STEP = 0.01
"""Relative error over which the slope of a curve is taken."""

Array = np.ndarray


@dataclass(frozen=True)
class Curve:
    """The loss of the model's outputs for a relative squared error in one contraction, as measured at some errors.

    Attributes:
        errors: Relative squared errors above 0, rising.
        losses: The loss at each of them, rising.
    """

    errors: tuple[float, ...] = (1.0,)
    losses: tuple[float, ...] = (1.0,)

    def __call__(self, error: float) -> float:
        """Power laws between the points, straight lines before the first and after the last."""
        e, loss = self.errors, self.losses
        if error <= e[0]:
            return loss[0] * error / e[0]
        if error >= e[-1]:
            return loss[-1] * error / e[-1]
        return float(np.exp(np.interp(np.log(error), np.log(e), np.log(loss))))

    def tempered(self, trust: float, factor: float = 1.0) -> Curve:
        """The geometric mean of the bare error and the loss, the loss with a weight of `trust`; times a factor."""
        pairs = zip(self.errors, self.losses, strict=True)
        return Curve(
            self.errors, tuple(factor * e ** (1 - trust) * loss**trust for e, loss in pairs)
        )


@dataclass(frozen=True, eq=False)
class Fitted:
    """What makes up for the columns of a contraction that went.

    Attributes:
        weight: (G, M, columns left).
        shift: What is to be added to the bias, so that the mean stays: float64 (G, M).
    """

    weight: Kept
    shift: Array


class Consumer:
    """A contraction while indices of what it reads, and of what it gives, go one after the other.

    Args:
        seen: The contraction and the moments of its input.
        curve: What a relative squared error in its output is worth.
        dims: The Dims that may lose indices.
        shelf: Where the weight and H^-1 are between two looks at them.
    """

    def __init__(
        self, seen: Observed, curve: Curve, dims: Collection[Dim], shelf: Shelf | None = None
    ) -> None:
        each = seen.contraction
        self.contraction, self.curve = each, curve
        self.rows_met = seen.sums.count
        self._shelf = Shelf(sys.maxsize) if shelf is None else shelf
        w, covariance = each.matrix(each.view.read()), seen.sums.covariance()
        energy = float(np.vdot(w @ covariance, w))
        self.energy = max(energy, SMALLEST)
        self._means = seen.sums.mean()
        self._given = np.einsum("gmk,gk->gm", w, self._means)
        self._set(w, np.linalg.inv(shrunk(covariance, seen.sums.independent)))
        self.columns = {dim: _columns(dim, each.input_axis, each.taps) for dim in dims}
        self.columns = {dim: found for dim, found in self.columns.items() if found}
        self.rows = {dim: _columns(dim, each.output_axis, 1) for dim in dims}
        self.rows = {dim: found for dim, found in self.rows.items() if found}
        self.place = np.arange(w.shape[2])
        self.lost = 0.0

    def priced(self, curve: Curve) -> Consumer:
        """The same as it stands, to go its own way, with an error worth something else."""
        twin = copy(self)
        twin.curve = curve
        return twin

    def over(self, dims: Collection[Dim]) -> Consumer:
        """The same as it stands, of which only these Dims may lose indices."""
        twin = copy(self)
        twin.columns = {dim: found for dim, found in self.columns.items() if dim in dims}
        twin.rows = {dim: found for dim, found in self.rows.items() if dim in dims}
        return twin

    @property
    def w(self) -> Array:
        """The weight as it is now, (G, M, columns left); not to be written to."""
        return self._w.read()

    @property
    def fitted(self) -> Fitted:
        """The weight on its shelf, and what goes with it."""
        means = self._means[:, self.place >= 0]
        return Fitted(self._w, self._given - np.einsum("gmk,gk->gm", self.w, means))

    @property
    def inverse(self) -> Array:
        """H^-1 of the columns left, (G, K, K); not to be written to."""
        return self._inverse.read()

    def _set(self, w: Array, inverse: Array | None = None) -> None:
        self._w = self._shelf.keep(w)
        if inverse is not None:
            self._inverse = self._shelf.keep(inverse)

    def loss(self, error: float) -> float:
        """What a further relative squared error is worth."""
        return self.curve(self.lost + error) - self.curve(self.lost)

    @property
    def slope(self) -> float:
        """Loss for a small further error."""
        return self.loss(STEP) / STEP

    def errors(self, dim: Dim, indices: Sequence[int] | Array) -> Array:
        """The relative squared error that removing each index alone makes, float64, shape (len(indices),)."""
        found = np.zeros(len(indices))
        all_w, all_inverse = self.w, self.inverse
        for which, b in self._blocks(dim, indices):
            for w, inverse in zip(all_w, all_inverse, strict=True):
                if b.shape[1] == 1:
                    error = (w[:, b[:, 0]] ** 2).sum(0) / inverse[b[:, 0], b[:, 0]]
                else:
                    middle = np.linalg.inv(inverse[b[:, :, None], b[:, None, :]])
                    part = w[:, b].transpose(1, 0, 2)  # (indices, M, size)
                    error = ((part @ middle) * part).sum((1, 2))
                found[which] += error
        return found / self.energy

    def remove(self, dim: Dim, indices: Sequence[int] | Array) -> float:
        """Takes indices out, lets the others make up for them, and says what it cost."""
        loss = self._remove_inputs(dim, indices) if dim in self.columns else 0.0
        if dim in self.rows:
            gone = np.concatenate([self.rows[dim][j] for j in indices])
            w = self.w.copy()
            each = w.shape[1]
            for g in range(len(w)):
                mine = gone[gone // each == g] % each
                w[g, mine] = 0
            self._set(w)
        return loss

    def _blocks(
        self, dim: Dim, indices: Sequence[int] | Array
    ) -> Iterator[tuple[Array | slice, Array]]:
        """Where the columns of indices are now, (indices, columns of one), for those together that have as many."""
        columns = [self.columns[dim][j] for j in indices]
        if len({len(each) for each in columns}) == 1:
            place = self.place[np.stack(columns)]
            if (place >= 0).all():
                yield slice(None), place
                return
        by_size: dict[int, list[int]] = {}
        blocks = [self._alive(each) for each in columns]
        for k, block in enumerate(blocks):
            by_size.setdefault(len(block), []).append(k)
        for size, which in by_size.items():
            if size:
                yield np.array(which), np.stack([blocks[k] for k in which])

    def _alive(self, columns: Array) -> Array:
        """Where columns are now; those that went with another Dim of the same axis are left out."""
        place = self.place[columns]
        return np.asarray(place[place >= 0])

    def _remove_inputs(self, dim: Dim, indices: Sequence[int] | Array) -> float:
        b = self._alive(np.concatenate([self.columns[dim][j] for j in indices]))
        if not len(b):
            return 0.0
        all_w, all_inverse = self.w, self.inverse
        stay = np.ones(all_w.shape[2], bool)
        stay[b] = False
        places, error = np.flatnonzero(stay), 0.0
        w_new = all_w.take(places, 2)
        inverse_new = np.empty((len(all_inverse), len(places), len(places)))
        for g, (w, inverse) in enumerate(zip(all_w, all_inverse, strict=True)):
            middle = np.linalg.inv(inverse[np.ix_(b, b)])
            part = w[:, b]
            change = part @ middle
            error += float((change * part).sum())
            across = inverse[b].take(places, 1)
            w_new[g] -= change @ across
            inverse.take(places, 0).take(places, 1, out=inverse_new[g], mode="clip")  # unbuffered
            inverse_new[g] -= across.T @ (middle @ across)
        self._set(w_new, inverse_new)
        place = np.full(len(self.place), -1)
        alive = np.flatnonzero(self.place >= 0)
        alive = alive[~np.isin(self.place[alive], b)]
        place[alive] = np.arange(len(alive))
        self.place = place
        relative = max(error, 0.0) / self.energy
        loss = self.loss(relative)
        self.lost += relative
        return loss


def shrunk(covariance: Array, rows: int) -> Array:
    """The covariance, shrunk towards its diagonal as far as so few samples ask for, so that it can be inverted.

    The amount is the oracle approximating shrinkage of Chen, Wiesel, Eldar, Hero, "Shrinkage algorithms for MMSE
    covariance estimation", IEEE Transactions on Signal Processing 58, 2010, eq. 23.
    """
    k = covariance.shape[-1]
    result: Array = np.empty_like(covariance)
    for g, s in enumerate(covariance):
        square, trace = float((s * s).sum()), float(np.trace(s))
        numerator = (1 - 2 / k) * square + trace**2
        denominator = (rows + 1 - 2 / k) * (square - trace**2 / k)
        rho = min(1.0, numerator / denominator) if denominator > 0 else 1.0
        ridge = max(SHRINKAGE * trace / k, SMALLEST)
        result[g] = (1 - rho) * s + np.diag(rho * np.diagonal(s) + ridge)
    return result


def _columns(dim: Dim, axis: Axis, taps: int) -> dict[int, Array]:
    """For every index of a Dim the positions of an axis (times taps) that belong to it; empty if there are none."""
    found: dict[int, Array] = {}
    if dim not in leaves(axis):
        return found
    for row in positions(axis, dim):
        order = np.argsort(row, kind="stable")
        ends = np.searchsorted(row[order], np.arange(dim.size + 1))
        for j in range(dim.size):
            where = order[ends[j] : ends[j + 1]]
            if len(where):
                columns = (where[:, None] * taps + np.arange(taps)).reshape(-1)
                found[j] = np.union1d(found[j], columns) if j in found else columns
    return found


class Consumers:
    """All consumers of all Dims, and what each index that is left would cost.

    Attributes:
        left: The indices that are left of each Dim.
        gone: What went, in order.
    """

    def __init__(self, consumers: Sequence[Consumer], fallback: Mapping[Dim, Array]) -> None:
        self.consumers = consumers
        self.fallback = fallback
        self.left: dict[Dim, Array] = {dim: np.arange(dim.size) for dim in fallback}
        self.gone: list[tuple[Dim, Array]] = []
        self.of = {dim: [c for c in consumers if dim in c.columns] for dim in fallback}
        self.touched = {
            dim: [c for c in consumers if dim in c.columns or dim in c.rows] for dim in fallback
        }

    def losses(self, dim: Dim) -> Array:
        """The loss of removing each index that is left, alone, to first order; shape (len(left[dim]),)."""
        left = self.left[dim]
        if not self.of[dim]:
            return np.asarray(self.fallback[dim][left])
        total = np.zeros(len(left))
        for consumer in self.of[dim]:
            total += consumer.errors(dim, left) * consumer.slope
        return total

    def cheapest(self, dim: Dim, count: int) -> tuple[Array, float]:
        """The indices that are missed least, and about what all of them together cost."""
        left = self.left[dim]
        if not self.of[dim]:
            losses = self.fallback[dim][left]
            chosen = np.argsort(losses, kind="stable")[:count]
            return left[chosen], float(losses[chosen].sum())
        errors = [(consumer, consumer.errors(dim, left)) for consumer in self.of[dim]]
        total = sum((consumer.slope * each for consumer, each in errors), np.zeros(len(left)))
        chosen = np.argsort(total, kind="stable")[:count]
        return left[chosen], sum(
            consumer.loss(float(each[chosen].sum())) for consumer, each in errors
        )

    def next_to_go(self, dim: Dim, count: int, portion: int) -> tuple[Array, float]:
        """The indices that go if so many do, and what all of them together cost.

        A portion goes at a time, and the rest makes up for it before the next is chosen: of two channels that say the
        same each is missed little, and both together much.
        """
        if count <= portion:
            return self.cheapest(dim, count)
        ahead = Consumers(
            [each.priced(each.curve) for each in self.of[dim]], {dim: self.fallback[dim]}
        )
        ahead.left[dim] = self.left[dim]
        loss, chosen = 0.0, list[Array]()
        for start in range(0, count, portion):
            indices, _ = ahead.cheapest(dim, min(portion, count - start))
            loss += ahead.remove(dim, indices)
            chosen.append(indices)
        return np.concatenate(chosen), loss

    def remove(self, dim: Dim, indices: Array) -> float:
        """Removes indices, and gives back what it cost."""
        loss = 0.0 if self.of[dim] else float(self.fallback[dim][indices].sum())
        for consumer in self.touched[dim]:
            loss += consumer.remove(dim, indices)
        self._note(dim, indices)
        return loss

    def _note(self, dim: Dim, indices: Array) -> None:
        """Keeps account of indices that go."""
        self.left[dim] = np.setdiff1d(self.left[dim], indices)
        self.gone.append((dim, indices))

    def fitted(self) -> dict[ir.Node, Fitted]:
        """What made up for what went, by node; not where so few rows were met that it would not do for others."""
        every = (
            c
            for c in self.consumers
            if c.contraction.output is not None and c.rows_met >= c.contraction.columns
        )
        return {c.contraction.node: c.fitted for c in every}

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
