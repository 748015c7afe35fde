"""Products of matrices: both gradients are products again.

Y = A B       dA = dY B^T      dB = A^T dY
"""

from __future__ import annotations

import itertools
import string

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp


@vjp("MatMul")
def matmul(call: Call, dy: Tensor) -> Gradients:
    """As numpy.matmul: 1-D operands are a row or a column, leading axes broadcast.

    With a 2-D B (weights), all leading axes are one. A Gemm reads B as it is; of a Transpose of weights onnxruntime
    would keep the result.
    """
    op, (a, b) = call.op, call.inputs
    if b.rank == 2 and a.rank >= 2 and all(b.shape):
        if a.rank == 2:
            return op.Gemm(dy, b, transB=1), op.Gemm(a, dy, transA=1)
        flat, rows = (op.reshape(x, [-1, n]) for x, n in zip((a, dy), b.shape, strict=True))
        return op.reshape_like(op.Gemm(rows, b, transB=1), a), op.Gemm(flat, rows, transA=1)
    if a.rank == 1:
        dy = op.Unsqueeze(dy, [-1] if b.rank == 1 else [-2])
    if b.rank == 1:
        dy = op.Unsqueeze(dy, [-1])
    row = op.Unsqueeze(a, [0]) if a.rank == 1 else a
    column = op.Unsqueeze(b, [1]) if b.rank == 1 else b
    da = op.MatMul(dy, _swap(op, column, max(b.rank, 2)))
    db = op.MatMul(_swap(op, row, max(a.rank, 2)), dy)
    rank = max(a.rank, b.rank, 2)
    return _sum_leading(da, a, b, rank), _sum_leading(db, b, a, rank)


def _swap(op: Ops, x: Tensor, rank: int) -> Tensor:
    return op.Transpose(x, perm=[*range(rank - 2), rank - 1, rank - 2])


def _sum_leading(gradient: Tensor, x: Tensor, other: Tensor, rank: int) -> Tensor:
    """Sum over the leading axes along which `x` was broadcast, and take its shape."""
    mine = (1,) * (rank - max(x.rank, 2)) + x.shape[:-2]
    theirs = (1,) * (rank - max(other.rank, 2)) + other.shape[:-2]
    axes = [i for i, (m, t) in enumerate(zip(mine, theirs, strict=True)) if m == 1 and t != 1]
    if not axes and x.rank == rank:
        return gradient
    return gradient.ops.reshape_like(gradient.ops.sum(gradient, axes), x)


@vjp("Gemm")
def gemm(call: Call, dy: Tensor) -> Gradients:
    """Y = alpha A' B' + beta C, where ' is a transposition or nothing."""
    op, (a, b) = call.op, call.inputs[:2]
    alpha, beta = call.float("alpha", 1.0), call.float("beta", 1.0)
    trans_a, trans_b = call.int("transA"), call.int("transB")
    if trans_a:
        da = op.Gemm(b, dy, transA=trans_b, transB=1, alpha=alpha)
    else:
        da = op.Gemm(dy, b, transB=1 - trans_b, alpha=alpha)
    if trans_b:
        db = op.Gemm(dy, a, transA=1, transB=trans_a, alpha=alpha)
    else:
        db = op.Gemm(a, dy, transA=1 - trans_a, alpha=alpha)
    c = call.input(2)
    if c is None:
        return (da, db, None)[: len(call.inputs)]
    scaled = dy if beta == 1.0 else dy * beta
    extra = 2 - c.rank
    axes = [i for i in range(2) if i < extra or (c.shape[i - extra] == 1 and call.y.shape[i] != 1)]
    return da, db, op.reshape_like(op.sum(scaled, axes), c) if axes else scaled


@vjp("Einsum")
def einsum(call: Call, dy: Tensor) -> Gradients:
    """The gradient of an operand is an Einsum of dY with the others.

    Indices of the operand that neither the output nor another operand has were summed alone: they
    are stretched back. A repeated index in one operand (a diagonal) has its gradient masked to the
    diagonal.
    """
    operands, result = _terms(call)
    return [
        _einsum_operand(call, dy, operands, result, i) if call.wanted[i] else None
        for i in range(len(operands))
    ]


def _terms(call: Call) -> tuple[list[str], str]:
    """The subscripts of every operand and of the output, ellipses written out."""
    equation = call.str("equation").replace(" ", "")
    left, _, right = equation.partition("->")
    terms = left.split(",")
    free = [c for c in string.ascii_letters if c not in equation]
    dots = max(
        (
            x.rank - len(term.replace("...", ""))
            for term, x in zip(terms, call.inputs, strict=True)
            if "..." in term
        ),
        default=0,
    )
    spelled = "".join(free[:dots])

    def spell(term: str, rank: int) -> str:
        count = rank - len(term.replace("...", ""))
        return term.replace("...", spelled[len(spelled) - count :])

    operands = [spell(term, x.rank) for term, x in zip(terms, call.inputs, strict=True)]
    if "->" not in equation:
        letters = "".join(operands)
        once = sorted(c for c in set(letters) if letters.count(c) == 1 and c not in spelled)
        return operands, spelled + "".join(once)
    return operands, spell(right, call.y.rank)


def _einsum_operand(call: Call, dy: Tensor, operands: list[str], result: str, index: int) -> Tensor:
    op, x, term = call.op, call.inputs[index], operands[index]
    others = [
        (o, t) for i, (o, t) in enumerate(zip(call.inputs, operands, strict=True)) if i != index
    ]
    known = set(result).union(*(set(t) for _, t in others))
    unique = "".join(dict.fromkeys(term))
    kept = "".join(c for c in unique if c in known)
    equation = ",".join([result, *(t for _, t in others)]) + "->" + kept
    gradient = op.Einsum(dy, *(o for o, _ in others), equation=equation)
    missing = [axis for axis, c in enumerate(unique) if c not in known]
    if missing:
        gradient = op.Unsqueeze(gradient, missing)
    if unique != term:
        return _diagonal(op, gradient, unique, term, x)
    for axis, c in enumerate(term):  # an operand of size 1 that was broadcast
        if x.shape[axis] == 1 and c in known and _stretched(call, operands, result, c):
            gradient = op.sum(gradient, [axis], keepdims=True)
    return op.Expand(gradient, op.shape_of(x)) if missing else gradient


def _stretched(call: Call, operands: list[str], result: str, letter: str) -> bool:
    tensors = zip([*call.inputs, call.y], [*operands, result], strict=True)
    return any(
        size != 1
        for tensor, term in tensors
        for c, size in zip(term, tensor.shape, strict=True)
        if c == letter
    )


def _diagonal(op: Ops, gradient: Tensor, unique: str, term: str, x: Tensor) -> Tensor:
    """Put a gradient over distinct indices where the repeated indices of `term` agree."""
    first = [term.index(c) for c in unique]
    gradient = op.Unsqueeze(gradient, [a for a in range(len(term)) if a not in first])
    full = op.Expand(gradient, op.shape_of(x))
    for a, b in itertools.combinations(range(len(term)), 2):
        if term[a] == term[b]:
            full = full * op.cast(_equal_index(op, x, a, b), x.dtype)
    return full


def _equal_index(op: Ops, x: Tensor, a: int, b: int) -> Tensor:
    """True where the indices along axes `a` and `b` are equal, broadcastable to `x`."""

    def index(axis: int) -> Tensor:
        size = op.Squeeze(op.Gather(op.shape_of(x), [axis]), [0])
        line = op.Range(op.constant(np.array(0)), size, op.constant(np.array(1)))
        return op.reshape(line, [-1 if i == axis else 1 for i in range(x.rank)])

    return op.Equal(index(a), index(b))
