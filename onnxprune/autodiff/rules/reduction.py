"""Reductions over axes, and what is normalised by one (softmax).

sum        dx = dy, stretched
max, min   to those that attain it, in equal shares
prod       dx_i = dy times the product of the others
L2         dx = x / y dy            log-sum-exp    dx = exp(x - y) dy
softmax    dx = y (dy - sum y dy)   log-softmax    dx = dy - exp(y) sum dy
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.registry import Call, Gradients, no_gradient, vjp

no_gradient("ArgMax", "ArgMin", "Hardmax", "NonZero")


def _axes(call: Call) -> list[int]:
    """The axes reduced over, counted from the front; all by default."""
    given = call.constant(1)
    if given is None or given.size == 0:
        return [] if call.int("noop_with_empty_axes") else list(range(call.x.rank))
    return sorted(int(axis) % call.x.rank for axis in given.ravel())


def _keep(call: Call, reduced: Tensor, axes: list[int]) -> Tensor:
    """A tensor in the output's shape with the reduced axes back, of size 1."""
    return reduced if call.int("keepdims", 1) or not axes else call.op.Unsqueeze(reduced, axes)


_SCALED: dict[str, Callable[[Call, Tensor, Tensor, list[int]], Tensor]] = {
    "ReduceSum": lambda c, dy, y, axes: dy,
    "ReduceMean": lambda c, dy, y, axes: dy / c.op.size(c.x, axes, dy.dtype) if axes else dy,
    "ReduceL1": lambda c, dy, y, axes: dy * c.op.Sign(c.x),
    "ReduceL2": lambda c, dy, y, axes: c.x * (dy / c.op.where(y > 0.0, y, 1.0)),
    "ReduceLogSum": lambda c, dy, y, axes: dy / c.op.Exp(y),
    "ReduceLogSumExp": lambda c, dy, y, axes: dy * c.op.Exp(c.x - y),
    "ReduceSumSquare": lambda c, dy, y, axes: c.x * (dy * 2.0),
}


@vjp(*_SCALED)
def reduce(call: Call, dy: Tensor) -> Gradients:
    """The ops of the table above: a tensor that broadcasts to x, or is of its shape."""
    axes = _axes(call)
    y, dy = _keep(call, call.y, axes), _keep(call, dy, axes)
    dx = _SCALED[call.node.op_type](call, dy, y, axes)
    if call.node.op_type in {"ReduceSum", "ReduceMean", "ReduceLogSum"} and axes:
        dx = call.op.Expand(dx, call.op.shape_of(call.x))
    return (dx, None)[: len(call.inputs)]


@vjp("ReduceMax", "ReduceMin")
def reduce_extremum(call: Call, dy: Tensor) -> Gradients:
    """Equal shares to equals."""
    axes = _axes(call)
    y, dy = _keep(call, call.y, axes), _keep(call, dy, axes)
    chosen = call.op.cast(call.op.Equal(call.x, y), dy.dtype)
    share = dy / call.op.sum(chosen, axes, keepdims=True)
    return (chosen * share, None)[: len(call.inputs)]


@vjp("ReduceProd")
def reduce_prod(call: Call, dy: Tensor) -> Gradients:
    """The quotient y / x, or where one factor is zero the product of the others."""
    op, x, axes = call.op, call.x, _axes(call)
    if not axes:
        return (dy, None)[: len(call.inputs)]
    dy = _keep(call, dy, axes)
    zero = op.Equal(x, 0.0)
    zeros = op.sum(op.cast(zero, x.dtype), axes, keepdims=True)
    filled = op.where(zero, op.constant(np.ones(()), x.dtype), x)
    rest = op.ReduceProd(filled, list(axes), keepdims=1) / filled
    others = zeros - op.cast(zero, x.dtype)  # zeros among the other factors
    return (op.where(op.Equal(others, 0.0), dy * rest, 0.0), None)[: len(call.inputs)]


@vjp("Softmax")
def softmax(call: Call, dy: Tensor) -> Gradients:
    """See the module's text."""
    axis = call.int("axis", -1) % call.y.rank
    weighted = call.y * dy
    return (weighted - call.y * call.op.sum(weighted, [axis], keepdims=True),)


@vjp("LogSoftmax")
def log_softmax(call: Call, dy: Tensor) -> Gradients:
    """See the module's text."""
    axis = call.int("axis", -1) % call.y.rank
    return (dy - call.op.Exp(call.y) * call.op.sum(dy, [axis], keepdims=True),)


@vjp("CumSum")
def cum_sum(call: Call, dy: Tensor) -> Gradients:
    """The sum from the other end."""
    axis = call.inputs[1]
    return (
        call.op.CumSum(dy, axis, exclusive=call.int("exclusive"), reverse=1 - call.int("reverse")),
        None,
    )


@vjp("CumProd")
def cum_prod(call: Call, dy: Tensor) -> Gradients:
    """The sum of dy y from the other end, over x, which must not be zero."""
    total = call.op.CumSum(
        dy * call.y,
        call.op.reshape(call.inputs[1], [1]),
        exclusive=call.int("exclusive"),
        reverse=1 - call.int("reverse"),
    )
    return total / call.x, None


@vjp("TopK")
def top_k(call: Call, dy: Tensor, _: Tensor | None = None) -> Gradients:
    """Back to where the values were."""
    op, indices = call.op, call.outputs[1]
    zeros = op.zeros_like(call.x)
    return op.ScatterElements(zeros, indices, dy, axis=call.int("axis", -1)), None


@vjp("Det")
def det(call: Call, dy: Tensor) -> Gradients:
    """The cofactors, which are determinants again: of the matrix without a row and a column."""
    op, x = call.op, call.x
    size = x.shape[-1]
    if size is None:
        raise call.error("the size of the matrix is not known")
    signs = np.fromfunction(lambda i, j: 1.0 - 2.0 * ((i + j) % 2), (size, size))
    cofactors = op.constant(signs, x.dtype)
    if size > 1:
        rest = np.array([[k for k in range(size) if k != i] for i in range(size)])
        rows = op.Gather(x, rest, axis=x.rank - 2)  # ... i, rows but i, columns
        minors = op.Gather(rows, rest, axis=x.rank)  # ... i, rows but i, j, columns but j
        lead = list(range(x.rank - 2))
        perm = [*lead, *(x.rank - 2 + k for k in (0, 2, 1, 3))]
        cofactors = op.Det(op.Transpose(minors, perm=perm)) * cofactors
    return (op.Unsqueeze(dy, [-2, -1]) * cofactors,)
