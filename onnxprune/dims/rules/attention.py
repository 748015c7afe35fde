"""Fused attention: `k` heads of keys and values, each for `r` of queries (or as many, `h`), `d` and `v` wide."""

from __future__ import annotations

import math

from onnxprune.dims.axis import size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, Rule, axes, specs
from onnxprune.dims.spec import Spec

_CACHES = "b k _ d, b k _ v"
_GROUPS = "(k r w 8), b k _ (w 8), b k _ (w 8)"

# Positions turn pairs inside a head: heads pass. Without their number, two tables of half the width tell that.
_ROTARY = "b h s _, *, *, * -> b h s _ | {} b s (h d!), *, *, * -> b s (h d!)"
_BY_TABLE = "| b s (h 2 e!), *, _ e!, _ e! -> b s (h 2 e!)"

specs({"RotaryEmbedding": _ROTARY.format("") + "; num_heads=h"})
specs(
    {
        "EmbedLayerNormalization": "b s, b s, _ c~, _ c, _ c, c, c, b s, b s -> b s c, *, b s c",
        "QEmbedLayerNormalization": f"b s, b s, _ c~, _ c, _ c, c, c, b s{', *' * 10} -> b s c, *",
        "RotaryEmbedding": _ROTARY.format("num_heads:") + _BY_TABLE + "; num_heads=h",
    },
    domain=CONTRIB,
)


def _attention(text: str) -> Rule:
    """A spec, and what all attention has in common: the scale is that of the original width; positions turn pairs."""
    spec = Spec.parse(text)

    def rule(node: Context) -> None:
        letters = spec.apply(node)
        width = letters.get("d", letters.get("w"))
        if width is not None:
            original = size(width) * (8 if "w" in letters else 1)
            node.default_stays("scale", 1 / math.sqrt(original), width)
            if node.attr("do_rotary", 0):
                node.freeze(width, "positions are encoded along it")

    return rule


# Q, K, V of `b heads s width`, or `b s (heads width)` with the numbers of heads as attributes; mask; past K and V.
axes("Attention")(
    _attention(
        f"b _ (k r d), b _ (k d), b _ (k v), b? (k r)? _ _, {_CACHES} -> b _ (k r v), {_CACHES}, b (k r) _ _ |"
        f"b (k r) _ d, b k _ d, b k _ v, b? (k r)? _ _, {_CACHES} -> b (k r) _ v, {_CACHES}, b (k r) _ _"
        ";kv_num_heads=k, q_num_heads=(k r)"
    )
)
# Query, key, value, one bias for the three, mask, position bias, past key and value.
axes("MultiHeadAttention", domain=CONTRIB)(
    _attention(
        "b _ (h d), b _ (h d), b _ (h v), (h d)+(h d)+(h v), *, b? h? _ _, b h _ d, b h _ v"
        " -> b _ (h v), b h _ d, b h _ v; num_heads=h"
    )
)
# Input, the weights of all three, bias, mask, past, position bias. Without the attribute the three widths are equal,
# and the kernel takes a third of the weights for each; a cache is one tensor for keys and values.
axes("Attention", domain=CONTRIB)(
    _attention(
        "qkv_hidden_sizes: b _ i, i (h d)+(h d)+(h v), (h d)+(h d)+(h v), *, , b? h? _ _ -> b _ (h v), |"
        "b _ i, i (h d)+(h d)+(h d), (h d)+(h d)+(h d), *, _ b h! _ d!, b? h? _ _ -> b _ (h d), _ b h! _ d!"
        "; num_heads=h, qkv_hidden_sizes=(h d) (h d) (h v)"
    )
)
# Input, the weights of all three, bias, scales, mask, zero points, past.
axes("QAttention", domain=CONTRIB)(
    _attention(
        "b _ i, i (h d)+(h d)+(h d), (h d)+(h d)+(h d), *, (h d)+(h d)+(h d)?, *, *, (h d)+(h d)+(h d)?,"
        " _ b h! _ d! -> b _ (h d), _ b h! _ d!; num_heads=h"
    )
)
# Query, key and value, or all in the query; caches. The kernel takes widths that are multiples of 8.
axes("GroupQueryAttention", domain=CONTRIB)(
    _attention(
        f"b _ (k r w 8)+(k w 8)+(k w 8), , , b k _ (w 8), b k _ (w 8) -> b _ {_GROUPS} |"
        f"b _ (k r w 8), b _ (k w 8), b _ (k w 8), b k _ (w 8), b k _ (w 8) -> b _ {_GROUPS}"
        "; kv_num_heads=k, num_heads=(k r)"
    )
)
