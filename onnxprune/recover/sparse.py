"""Zeroing weights so that those that stay make up for those that go: SparseGPT, layer by layer.

For one row w of a layer that reads x, with H = E[x x'] over what reaches it in the model whose earlier layers are
sparse already, the columns are gone through once, from left to right. Of column j the weight either stays or becomes
zero, and what that costs is taken over by the columns after it,

    w_k <- w_k - e U_jk / U_jj,   e = w_j - (its new value),   for k > j,   U'U = H^-1, U upper triangular

so that one factorisation serves all rows. Which weights go is chosen by their cost, w_j^2 / U_jj^2, as columns come:

1. a fraction of every block of `BLOCK` columns, and all that is zero there already;
2. N:M: all but N of every M neighbours along the contraction axis (at one kernel position), as the group is reached;
3. masks that are given: only the compensation is new.

Source: Frantar, Alistarh, "SparseGPT: massive language models can be accurately pruned in one-shot", ICML 2023,
algorithm 1, with H damped by 1 % of its mean diagonal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.options import NM

__all__ = ["BLOCK", "Fraction", "Pattern", "sparse_rows"]

BLOCK = 128
DAMPING = 0.01

Array = np.ndarray


@dataclass(frozen=True)
class Fraction:
    """The share of the weights that become zero."""

    value: float


Pattern = Fraction | NM | Array
"""How much becomes zero, or exactly which weights: a boolean array of the matrix's shape, true where zero."""


def sparse_rows(weight: Array, moment: Array, pattern: Pattern, run: int) -> tuple[Array, Array]:
    """Zeroes weights of one matrix and compensates.

    Args:
        weight: float64 (M, K), a row an output.
        moment: E[x x'], (K, K).
        pattern: What becomes zero.
        run: Columns in a row that N:M groups may not straddle the end of: K divides into runs.

    Returns:
        The new weight, and a boolean array that is true where it is zero by the pattern.
    """
    upper = _factor(moment)
    w, mask = weight.copy(), np.zeros(weight.shape, bool)
    gone = weight == 0  # whatever the columns before it would make of it
    columns = weight.shape[1]
    for start, stop in _blocks(columns, run, pattern):
        part = w[:, start:stop]
        diagonal = np.diagonal(upper)[start:stop]
        if isinstance(pattern, Fraction):
            zero = gone[:, start:stop]
            cost = np.where(zero, -1.0, part**2 / diagonal**2)
            count = max(int(pattern.value * cost.size + 1e-6), int(zero.sum()))
            mask[:, start:stop] = _least(cost, count)
        elif not isinstance(pattern, NM):
            mask[:, start:stop] = pattern[:, start:stop]
        errors = np.empty_like(part)
        for j in range(stop - start):
            k = start + j
            if isinstance(pattern, NM) and k % run % pattern.m == 0:
                end = min(k - k % run + run, k + pattern.m)
                cost = w[:, k:end] ** 2 / np.diagonal(upper)[k:end] ** 2
                cost = np.where(gone[:, k:end], -1.0, cost)
                mask[:, k:end] = _all_but(cost, pattern.n)
            error = np.where(mask[:, k], w[:, k], 0.0) / upper[k, k]
            w[:, k:stop] -= np.outer(error, upper[k, k:stop])
            errors[:, j] = error
        w[:, stop:] -= errors @ upper[start:stop, stop:]
    w[mask] = 0
    return w, mask


def _blocks(columns: int, run: int, pattern: Pattern) -> Sequence[tuple[int, int]]:
    """Where blocks begin and end; none cuts through a group of N:M."""
    if not isinstance(pattern, NM):
        return [(k, min(k + BLOCK, columns)) for k in range(0, columns, BLOCK)]
    step = max(BLOCK // pattern.m, 1) * pattern.m
    return [
        (first + k, min(first + k + step, first + run))
        for first in range(0, columns, run)
        for k in range(0, run, step)
    ]


def _factor(moment: Array) -> Array:
    """U upper triangular with U'U = H^-1; inputs that are never anything but zero cost nothing."""
    h = moment.copy()
    diagonal = np.diagonal(h).copy()
    damping = DAMPING * float(diagonal.mean())
    h[np.diag_indices_from(h)] = diagonal + (damping if damping > 0 else 1.0)
    return np.asarray(np.linalg.cholesky(np.linalg.inv(h)).T)


def _least(cost: Array, count: int) -> Array:
    """The cheapest of a block, the first of equal ones."""
    mask = np.zeros(cost.size, bool)
    mask[np.argsort(cost, axis=None, kind="stable")[:count]] = True
    return mask.reshape(cost.shape)


def _all_but(cost: Array, kept: int) -> Array:
    """Of each row all but the dearest."""
    mask = np.zeros(cost.shape, bool)
    if cost.shape[1] > kept:
        order = np.argsort(cost, axis=1, kind="stable")[:, : cost.shape[1] - kept]
        np.put_along_axis(mask, order, True, axis=1)
    return mask
