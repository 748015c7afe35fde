"""Normalisations.

With x^ = (x - m) r, where m is the mean and r = 1 / sqrt(var + eps) over some axes, and y = x^ s +
b:

    dx = r (g - mean(g) - x^ mean(g x^))    where g = dy s

without the first mean where no mean is subtracted (RMS norm), and only r g where m and r are given
(inference).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp


def _statistics(op: Ops, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """x^ and r over `axes`."""
    centred = x - op.ReduceMean(x, list(axes))
    inverse = 1.0 / op.Sqrt(op.ReduceMean(centred * centred, list(axes)) + epsilon)
    return centred * inverse, inverse


def _through(
    op: Ops,
    g: Tensor,
    normal: Tensor,
    inverse: Tensor,
    axes: Sequence[int],
    *,
    centred: bool = True,
) -> Tensor:
    """The gradient dx of the text above."""
    inner = g - normal * op.ReduceMean(g * normal, list(axes))
    if centred:
        inner = inner - op.ReduceMean(g, list(axes))
    return inner * inverse


def layer_norm_gradient(
    op: Ops, g: Tensor, x: Tensor, axes: Sequence[int], epsilon: float
) -> tuple[Tensor, Tensor]:
    """The gradient dx of the text above, and x^."""
    normal, inverse = _statistics(op, x, axes, epsilon)
    return _through(op, g, normal, inverse, axes), normal


def _column(op: Ops, x: Tensor, rank: int) -> Tensor:
    """Per-channel numbers, to be broadcast along axis 1 of a tensor of the given rank."""
    return x if rank == 2 else op.reshape(x, [-1] + [1] * (rank - 2))


@vjp("BatchNormalization")
def batch_normalization(call: Call, dy: Tensor, *running: Tensor | None) -> Gradients:
    """With running statistics, or with those of the batch in training mode."""
    op, (x, scale, _, mean, variance) = call.op, call.inputs
    rank, axes = x.rank, [0, *range(2, x.rank)]
    epsilon = call.float("epsilon", 1e-5)
    total = op.sum(dy, axes)
    if call.int("training_mode"):
        mean, variance = _of_batch(call, axes)
        inverse = 1.0 / op.Sqrt(variance + epsilon)
        along = (_dot_per_channel(x, dy) - mean * total) * inverse  # sum dy x^
        # dx = s r (dy - sum dy / n - x^ sum dy x^ / n), with few passes over the big tensors
        factor, count = scale * inverse, op.size(x, axes, x.dtype)
        slope = factor * inverse * along / count
        dx = dy * _column(op, factor, rank) - x * _column(op, slope, rank)
        dx = dx + _column(op, mean * slope - factor * total / count, rank)
        old = [_training_statistics(call, running, axes, i) for i in (0, 1)]
        for _, through in old:
            dx = dx if through is None else dx + through
        return dx, along, total, old[0][0], old[1][0]
    inverse = 1.0 / op.Sqrt(variance + epsilon)
    factor = scale * inverse
    dx = dy * _column(op, factor, rank)
    if not any(call.wanted[1:]):
        return dx, None, None, None, None
    along = (_dot_per_channel(x, dy) - mean * total) * inverse  # sum dy x^
    return dx, along, total, -(factor * total), -0.5 * along * factor * inverse


def _dot_per_channel(x: Tensor, y: Tensor) -> Tensor:
    """The sum of x y over all axes but that of the channels, by one pass over both: a product of a row and a column."""
    op = x.ops
    if x.rank == 2:
        return op.sum(x * y, [0])
    row, column = op.Reshape(x, [0, 0, 1, -1]), op.Reshape(y, [0, 0, 1, -1])
    return op.sum(op.MatMul(row, op.Transpose(column, perm=[0, 1, 3, 2])), [0, 2, 3])


def _of_batch(call: Call, axes: list[int]) -> tuple[Tensor, Tensor]:
    """Mean and variance of the batch: the node gives them where nothing is left of the old ones."""
    if len(call.outputs) == 3 and call.float("momentum", 0.9) == 0.0:
        return call.outputs[1], call.outputs[2]
    op, x = call.op, call.x
    mean = op.ReduceMean(x, axes)
    centred = x - mean
    flat = [op.reshape(each, [-1]) for each in (mean, op.ReduceMean(centred * centred, axes))]
    return flat[0], flat[1]


def _training_statistics(
    call: Call, running: Sequence[Tensor | None], axes: list[int], which: int
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the old running mean or variance, and of x through the new one."""
    op, x, momentum = call.op, call.x, call.float("momentum", 0.9)
    given = running[which] if which < len(running) else None
    if given is None:
        return None, None
    share = _column(op, given, x.rank) * (1.0 - momentum) / op.size(x, axes, x.dtype)
    if which == 0:
        return given * momentum, op.Expand(share, op.shape_of(x))
    return given * momentum, (x - op.ReduceMean(x, axes)) * share * 2.0


@vjp("InstanceNormalization")
def instance_normalization(call: Call, dy: Tensor) -> Gradients:
    """Over the spatial axes of every sample and channel."""
    op, (x, scale, _) = call.op, call.inputs
    axes = list(range(2, x.rank))
    normal, inverse = _statistics(op, x, axes, call.float("epsilon", 1e-5))
    dx = _through(op, dy * _column(op, scale, x.rank), normal, inverse, axes)
    return dx, op.sum(dy * normal, [0, *axes]), op.sum(dy, [0, *axes])


@vjp("LayerNormalization")
def layer_normalization(call: Call, dy: Tensor | None, *more: Tensor | None) -> Gradients:
    """Over all axes from `axis` on; scale and bias broadcast. It may also give the mean and r."""
    op, (x, scale) = call.op, call.inputs[:2]
    axes = list(range(call.int("axis", -1) % x.rank, x.rank))
    normal, inverse = _statistics(op, x, axes, call.float("epsilon", 1e-5))
    dmean, dinverse = (*more, None, None)[:2]
    if dy is None:
        dy = op.zeros_like(call.y)
    dx = _through(op, dy * scale, normal, inverse, axes)
    count = op.size(x, axes, x.dtype)
    if dmean is not None:
        dx = dx + op.cast(dmean, x.dtype) / count
    if dinverse is not None:
        dx = dx - normal * (op.cast(dinverse, x.dtype) * inverse * inverse / count)
    bias = call.input(2)
    return (
        dx,
        op.unbroadcast(dy * normal, call.y, scale),
        None if bias is None else op.unbroadcast(dy, call.y, bias),
    )[: len(call.inputs)]


@vjp("RMSNormalization")
def rms_normalization(call: Call, dy: Tensor) -> Gradients:
    """Zhang and Sennrich 2019, arXiv:1910.07467."""
    op, (x, scale) = call.op, call.inputs
    axes = list(range(call.int("axis", -1) % x.rank, x.rank))
    inverse = 1.0 / op.Sqrt(op.ReduceMean(x * x, axes) + call.float("epsilon", 1e-5))
    normal = x * inverse
    dx = _through(op, dy * scale, normal, inverse, axes, centred=False)
    return dx, op.unbroadcast(dy * normal, call.y, scale)


@vjp("GroupNormalization")
def group_normalization(call: Call, dy: Tensor) -> Gradients:
    """Wu and He 2018, arXiv:1803.08494; scale and bias per channel, per group before opset 21."""
    op, (x, scale, bias) = call.op, call.inputs
    groups, channels = call.int("num_groups"), x.shape[1] or 0
    axes = list(range(2, x.rank + 1))
    grouped = op.reshape_before(x, [-1, groups, channels // groups], x, 2)
    normal, inverse = _statistics(op, grouped, axes, call.float("epsilon", 1e-5))
    per_group = scale.shape[0] == groups and groups != channels
    shape = [groups, 1] if per_group else [groups, channels // groups]
    spread = op.reshape(scale, [*shape, *[1] * (x.rank - 2)])
    g = op.reshape_before(dy, [-1, groups, channels // groups], x, 2)
    dx = op.reshape_like(_through(op, g * spread, normal, inverse, axes), x)
    over = [0, *(axes if per_group else axes[1:])]
    return (
        dx,
        op.reshape_like(op.sum(g * normal, over), scale),
        op.reshape_like(op.sum(g, over), bias),
    )


@vjp("LpNormalization")
def lp_normalization(call: Call, dy: Tensor) -> Gradients:
    """For y = x / |x|_p, p = 1 or 2."""
    op, x = call.op, call.x
    axis, p = call.int("axis", -1) % x.rank, call.int("p", 2)
    reduce = op.ReduceL1 if p == 1 else op.ReduceL2
    norm = reduce(x, [axis], keepdims=1)
    inner = op.sum(dy * call.y, [axis], keepdims=True)
    direction = op.Sign(x) if p == 1 else call.y
    return ((dy - inner * direction) / op.where(norm > 0.0, norm, 1.0),)


@vjp("LRN")
def lrn(call: Call, dy: Tensor) -> Gradients:
    """Krizhevsky et al. 2012, section 3.3.

    y = x z^-beta, z = bias + alpha / size (sum of x^2 over nearby channels)
    dx = dy z^-beta - 2 alpha beta / size x (sum of dy y / z over the channels whose z saw x)
    """
    op, x, size = call.op, call.x, call.int("size")
    alpha, beta = call.float("alpha", 1e-4), call.float("beta", 0.75)
    before, after = (size - 1) // 2, size - 1 - (size - 1) // 2
    z = _nearby(op, x * x, x, before, after) * (alpha / size) + call.float("bias", 1.0)
    back = _nearby(op, dy * call.y / z, x, after, before)
    return (dy * op.Pow(z, -beta) - x * back * (2.0 * alpha * beta / size),)


def _nearby(op: Ops, values: Tensor, x: Tensor, before: int, after: int) -> Tensor:
    """The sum over channels c - before to c + after: a convolution along the channels."""
    flat = op.Reshape(values, op.constant(np.array([0, 1, x.shape[1] or 0, -1])))
    window = op.constant(np.ones((1, 1, before + after + 1, 1)), x.dtype)
    summed = op.Conv(flat, window, pads=[before, 0, after, 0])
    return op.reshape_like(summed, x)


@vjp("MeanVarianceNormalization")
def mean_variance_normalization(call: Call, dy: Tensor) -> Gradients:
    """For y = (x - mean) / std."""
    op, axes = call.op, call.ints("axes", [0, 2, 3])
    x = op.cast(call.x, ir.DataType.FLOAT) if call.x.dtype == ir.DataType.FLOAT16 else call.x
    normal, inverse = _statistics(op, x, axes, 1e-18)
    return (op.cast(_through(op, op.cast(dy, x.dtype), normal, inverse, axes), dy.dtype),)
