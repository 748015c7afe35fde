"""Ops that multiply and sum over an axis: convolutions, matrix products, Einsum."""

from __future__ import annotations

import re

from onnxprune.dims.axis import Axis
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.spec import Spec

specs(
    {
        "Conv": "n (g i) _*, (g o) i _*, (g o) -> n (g o) _*; group/1=g",
        "CausalConvWithState": "n c _, c _ _, c, n c _ -> n c _, n c _",
        "ConvTranspose": "n (g i) _*, (g i) o _*, (g o) -> n (g o) _*; group/1=g",
        "DeformConv": "n (g i) _*, (g o) i _*, n _ _*, (g o), n _ _* -> n (g o) _*; group/1=g",
    }
)
specs(
    {"FusedConv": "n (g i) _*, (g o) i _*, (g o), n (g o) _* -> n (g o) _*; group/1=g"},
    domain=CONTRIB,
)


@axes("MatMul", "Gemm")
@axes("FusedMatMul", "TransposeMatMul", "FusedGemm", domain=CONTRIB)
def matmul(node: Context) -> None:
    """`... m k, ... k n -> ... m n`, with what is added broadcast."""
    product(node, 0, 1)
    node.broadcast([2])


def product(node: Context, left: int, right: int) -> None:
    """States the matrix product of two inputs, each transposed on request; an operand of one axis is `k` alone."""
    if node.attr("transBatchA", 0) or node.attr("transBatchB", 0):
        node.freeze_all("MatMul with moved batch axes")
        return
    a = _transposed(node.x(left), node.attr("transA", 0))
    b = _transposed(node.x(right), node.attr("transB", 0))
    rest = list(node.out())
    node.unify(a[-1], b[-2] if len(b) > 1 else b[-1])
    if len(b) > 1:
        node.unify(b[-1], rest.pop())
    if len(a) > 1:
        node.unify(a[-2], rest.pop())
    for batch in (a[:-2], b[:-2]):
        node.meet(batch, rest)


def _transposed(x: tuple[Axis, ...], wanted: int) -> tuple[Axis, ...]:
    return (*x[:-2], x[-1], x[-2]) if wanted and len(x) > 1 else x


@axes("Einsum")
def einsum(node: Context) -> None:
    """The equation is a spec in which every axis may broadcast, and the ellipsis stands for any number of them."""
    left, arrow, right = node.attr("equation").replace(" ", "").partition("->")
    if not arrow:
        once = sorted(c for c in left if c.isalpha() and left.count(c) == 1)
        right = "..." * ("..." in left) + "".join(once)
    words = re.findall(r"\.{3}|->|,|\w", f"{left}->{right}")
    Spec.parse(" ".join({"...": "s*"}.get(w, f"{w}?" if w.isalpha() else w) for w in words)).apply(
        node
    )
