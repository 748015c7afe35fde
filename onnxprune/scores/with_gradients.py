"""Criteria on sampled gradients.

With g_n the gradient of the loss of sample n at an element w:

1. `gradient`: mean |g|. With a threshold eps this is the rule "w = 0 where |dL/dw| < eps". The mean is of absolute
   values, since at a trained minimum the gradients of samples cancel, whatever the weight is worth.
2. `taylor`: |w| mean |g|, the first-order loss of w -> 0. Of channels, the *signed* sum of w g over all that an
   index is to the nodes that read it, squared sample by sample (Molchanov et al., "Importance estimation for
   neural network pruning", CVPR 2019): see `onnxprune.sampling.gates`. The loss is not that of
   labels, which is flat where a model is sure of itself, but how far its outputs move.
3. `fisher`: w^2 mean g^2, the diagonal of the empirical Fisher matrix; without labels of the Fisher matrix itself
   (LeCun, Denker, Solla, "Optimal brain damage", NIPS 1989, with Fisher's diagonal for the Hessian's).
4. `hessian`: 1/2 w^2 h, h the diagonal of the Gauss-Newton matrix: the mean of g^2 with answers drawn from the model's
   own predictions, labels or not. Of channels, the same of signed sums.

The last two are kept as roots, so that tiny squares survive float32, and pooled as squares.
"""

from __future__ import annotations

import math

import numpy as np

from onnxprune.scores.criterion import Array, Context, criterion

__all__: list[str] = []


@criterion(
    "gradient", summary="mean |dL/dw| over the samples", needs_data=True, statistic="gradient_mean"
)
def _gradient(name: str, _values: Array, context: Context) -> Array:
    return context.statistic("gradient_mean", name)


@criterion(
    "taylor",
    summary="|w dL/dw|, first-order loss of removal; of channels the signed sum, squared by sample",
    needs_data=True,
    statistic="gradient_mean",
    signed=True,
    loss="outputs",
)
def _taylor(name: str, values: Array, context: Context) -> Array:
    return np.abs(values) * context.statistic("gradient_mean", name)


@criterion(
    "fisher", summary="(w dL/dw)^2 by sample", power=2, needs_data=True, statistic="gradient_rms"
)
def _fisher(name: str, values: Array, context: Context) -> Array:
    return np.abs(values) * context.statistic("gradient_rms", name)


@criterion(
    "hessian",
    summary="1/2 w^2 h, h the diagonal of the Gauss-Newton matrix",
    power=2,
    needs_data=True,
    statistic="gradient_rms",
    signed=True,
    loss="predictions",
)
def _hessian(name: str, values: Array, context: Context) -> Array:
    return np.abs(values) * context.statistic("gradient_rms", name) * math.sqrt(0.5)
