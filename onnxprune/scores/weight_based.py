"""Criteria that look at the weights alone, or at nothing: the data-free baselines.

1. `magnitude`: |w|, pooled as the L2 norm (Han et al., "Learning both weights and connections", NeurIPS 2015).
2. `l1`: |w|, pooled as the L1 norm (Li et al., "Pruning filters for efficient ConvNets", ICLR 2017).
3. `random`: uniform, the baseline every other criterion has to beat; the same for a tensor of the same name and
   shape whatever the order in which tensors are scored.
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
