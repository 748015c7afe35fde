"""Ops that multiply and sum over an axis: convolutions, matrix products, Einsum."""

from __future__ import annotations

import itertools
import re

from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.spec import Spec

# An operand, transposed on request, and the axis of it that is left; one axis alone is summed over.
_LEFT = (("transA:", "s* k m", "m"), ("", "s* m k", "m"), ("", "k", ""))
_RIGHT = (("transB:", "s* n k", "n"), ("", "s* k n", "n"), ("", "k", ""))


def product(template: str) -> str:
    """The spec of a matrix product: a template with the operands `{a}` and `{b}`, and what of them is left."""
    return " | ".join(
        f"{if_a} {if_b} " + template.format(a=a, b=b, m=m, n=n)
        for (if_a, a, m), (if_b, b, n) in itertools.product(_LEFT, _RIGHT)
    )


_MATMUL = product("{a}, {b}, m? n? -> s* {m} {n}")
_MOVED_BATCH = "transBatchA: _*, _* -> _* | transBatchB: _*, _* -> _*"
specs(
    {
        "MatMul Gemm": _MATMUL,
        "Conv": "n (g i) _*, (g o) i _*, (g o) -> n (g o) _*; group/1=g",
        "CausalConvWithState": "n c _, c _ _, c, n c _ -> n c _, n c _",
        "ConvTranspose": "n (g i) _*, (g i) o _*, (g o) -> n (g o) _*; group/1=g",
        "DeformConv": "n (g i) _*, (g o) i _*, n _ _*, (g o), n _ _* -> n (g o) _*; group/1=g",
    }
)
specs(
    {
        "FusedMatMul TransposeMatMul FusedGemm": f"{_MOVED_BATCH} | {_MATMUL}",
        "FusedConv": "n (g i) _*, (g o) i _*, (g o), n (g o) _* -> n (g o) _*; group/1=g",
    },
    domain=CONTRIB,
)


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
