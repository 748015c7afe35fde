"""Criteria that look at the weights alone, or at nothing: the data-free baselines.

1. `magnitude`: |w|, pooled as the L2 norm (Han et al., "Learning both weights and connections", NeurIPS 2015).
2. `l1`: |w|, pooled as the L1 norm (Li et al., "Pruning filters for efficient ConvNets", ICLR 2017).
3. `random`: uniform, the baseline every other criterion has to beat; the same for a tensor of the same name and
   shape whatever the order in which tensors are scored.
4. `lamp`: w^2 over the sum of all squares of the tensor that are not smaller, which makes tensors comparable under one
   global fraction (Lee et al., "Layer-adaptive sparsity for the magnitude-based pruning", ICLR 2021).
"""

from __future__ import annotations

import hashlib

import numpy as np

from onnxprune.scores.criterion import Array, Context, criterion

__all__: list[str] = []


@criterion("magnitude", summary="|w|, groups by their L2 norm", power=2, local=True)
def _magnitude(_name: str, values: Array, _context: Context) -> Array:
    return np.abs(values)


@criterion("l1", summary="|w|, groups by their L1 norm", local=True)
def _l1(_name: str, values: Array, _context: Context) -> Array:
    return np.abs(values)


@criterion("random", summary="uniform random numbers, the baseline")
def _random(name: str, values: Array, context: Context) -> Array:
    digest = hashlib.sha256(f"{context.seed}:{name}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(digest[:16], "little"))
    return generator.random(values.shape, dtype=np.float32)


@criterion("lamp", summary="w^2 over all larger squares of its tensor", scores="weights")
def _lamp(_name: str, values: Array, _context: Context) -> Array:
    squares = values.astype(np.float64).reshape(-1) ** 2
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    first = np.searchsorted(squares[order], squares[order])  # equal weights share one score
    score = np.empty_like(squares)
    score[order] = squares[order] / np.maximum(rest[first], np.finfo(np.float64).tiny)
    return score.reshape(values.shape)
