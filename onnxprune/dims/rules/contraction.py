"""Ops that multiply and sum over an axis: convolutions, matrix products, Einsum."""

from __future__ import annotations

from onnxprune.dims.axis import Axis, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs

specs(
    {
        "Conv": "n (g i) _*, (g o) i _*, (g o) -> n (g o) _*; g=group/1; group=g",
        "CausalConvWithState": "n c _, c _ _, c, n c _ -> n c _, n c _",
        "ConvTranspose": "n (g i) _*, (g i) o _*, (g o) -> n (g o) _*; g=group/1; group=g",
        "DeformConv": "n (g i) _*, (g o) i _*, n _ _*, (g o), n _ _* -> n (g o) _*; g=group/1; group=g",
    }
)
specs(
    {
        "FusedConv": "n (g i) _*, (g o) i _*, (g o), n (g o) _* -> n (g o) _*; g=group/1; group=g",
    },
    domain=CONTRIB,
)


@axes("MatMul")
@axes("FusedMatMul", "TransposeMatMul", domain=CONTRIB)
def matmul(node: Context) -> None:
    """`... m k, ... k n -> ... m n`; an operand of one axis is `k` alone."""
    a, b, out = node.x(0), node.x(1), node.out()
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        node.freeze_all("MatMul with moved batch axes")
        return
    if node.attr("transA", 0) and len(a) > 1:
        a = (*a[:-2], a[-1], a[-2])
    if node.attr("transB", 0) and len(b) > 1:
        b = (*b[:-2], b[-1], b[-2])
    node.unify(a[-1], b[-2] if len(b) > 1 else b[-1])
    rest = list(out)
    if len(b) > 1:
        node.unify(b[-1], rest.pop())
    if len(a) > 1:
        node.unify(a[-2], rest.pop())
    for batch in (a[:-2], b[:-2]):
        for axis, other in zip(reversed(batch), reversed(rest), strict=False):
            if size(axis) == size(other):
                node.unify(axis, other)


@axes("Gemm")
@axes("FusedGemm", domain=CONTRIB)
def gemm(node: Context) -> None:
    """`m k, k n, (broadcast) -> m n`, either operand transposed on request."""
    product(node, 0, 1)
    node.broadcast([2])


def product(node: Context, left: int, right: int) -> tuple[Axis, ...]:
    """States the matrix product of two inputs of two axes; returns the axes of the right one, `k n`."""
    a, b, out = node.x(left), node.x(right), node.out()
    if node.attr("transA", 0):
        a = a[::-1]
    if node.attr("transB", 0):
        b = b[::-1]
    node.unify(a[1], b[0])
    node.unify(a[0], out[0])
    node.unify(b[1], out[1])
    return b


@axes("Einsum")
def einsum(node: Context) -> None:
    """The equation says it all; the ellipsis broadcasts."""
    left, _, right = node.attr("equation").replace(" ", "").partition("->")
    terms = left.split(",")
    if not _:
        letters = sorted(c for c in left if c.isalpha())
        right = ("..." if "..." in left else "") + "".join(c for c in letters if left.count(c) == 1)
    known: dict[str, Axis] = {}
    for term, operand in [(t, node.x(i)) for i, t in enumerate(terms)] + [(right, node.out())]:
        before, dots, after = term.partition("...")
        names = list(before) + list(after)
        middle = operand[len(before) : len(operand) - len(after)] if dots else ()
        plain = operand[: len(before)] + (operand[len(operand) - len(after) :] if after else ())
        names += [f".{k}" for k in range(len(middle), 0, -1)]
        for name, axis in zip(names, (*plain, *middle), strict=True):
            if name not in known or size(known[name]) == 1:
                known[name] = axis
            elif size(axis) != 1:
                node.unify(axis, known[name])
