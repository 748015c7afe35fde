"""Products that onnxruntime's optimiser fused with what stood around them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call


@defined("FusedMatMul", domain="com.microsoft")
def fused_matmul(call: Call) -> Sequence[Tensor]:
    """Alpha A' B', where ' swaps the last two axes or does nothing."""
    op, factors = call.op, []
    for x, letter in zip(call.inputs, "AB", strict=True):
        if call.int(f"transBatch{letter}"):
            raise call.error("transBatch is not supported")
        if call.int(f"trans{letter}") and x.rank > 1:
            x = op.Transpose(x, perm=[*range(x.rank - 2), x.rank - 1, x.rank - 2])
        factors.append(x)
    return [op.MatMul(*factors) * call.float("alpha", 1.0)]
