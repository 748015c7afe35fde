"""Fused attention: heads and head width, read off the attributes."""

from __future__ import annotations

import math

from onnxprune.dims.axis import Axis, Dim, Product, Sum, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs

specs(
    {
        "EmbedLayerNormalization": "b s, b s, _ c~, _ c, _ c, c, c, b s, b s -> b s c, *, b s c",
        "RotaryEmbedding": "b s _, *, *, * -> b s _",
    },
    domain=CONTRIB,
)


@axes("Attention")
def attention(node: Context) -> None:
    """ai.onnx 23: Q, K, V of `b h s d`, or `b s (h d)` with the numbers of heads as attributes; mask, past K and V."""
    q, k, v = node.x(0), node.x(1), node.x(2)
    packed = len(q) == 3
    kv_heads = Dim(node.attr("kv_num_heads") if packed else node.shape(1)[1])
    heads = node.attr("q_num_heads") if packed else node.shape(0)[1]
    repeats = Dim(heads // kv_heads.size)
    width = Dim(node.shape(0)[-1] // heads if packed else node.shape(0)[-1])
    v_width = Dim(node.shape(2)[-1] // kv_heads.size if packed else node.shape(2)[-1])
    q_heads = Product((kv_heads, repeats))
    for x, h, d in (
        (q, q_heads, width),
        (k, kv_heads, width),
        (v, kv_heads, v_width),
        (node.out(), q_heads, v_width),
    ):
        if packed:
            node.unify(x[2], Product((h, d)))
        else:
            node.unify(x[1], h)
            node.unify(x[3], d)
    sequence = -2 if not packed else 1
    for x in (q, k, v):
        node.freeze(x[sequence])
    for i, d in ((4, width), (5, v_width)):
        _cache(node, node.axes(i), kv_heads, d)
        _cache(node, node.out(i - 3), kv_heads, d)
    for mask in (node.axes(3), node.out(3)):
        if mask and len(mask) == 4 and size(mask[1]) > 1:
            node.unify(mask[1], q_heads)
    node.attr_follows("q_num_heads", q_heads)
    node.attr_follows("kv_num_heads", kv_heads)
    node.attr_stays("scale", 1 / math.sqrt(width.size), width)


@axes("MultiHeadAttention", domain=CONTRIB)
def multi_head_attention(node: Context) -> None:
    """Query, key and value of `b s (h d)`, one bias for the three, mask, position bias, past key and value."""
    q = node.x(0)
    if len(q) != 3 or not node.has(1) or not node.has(2) or len(node.x(1)) != 3:
        node.freeze_all("MultiHeadAttention of packed or cached inputs")
        return
    heads = Dim(node.attr("num_heads"))
    width, v_width = Dim(size(q[2]) // heads.size), Dim(node.shape(2)[2] // heads.size)
    qk, vo = Product((heads, width)), Product((heads, v_width))
    for axis, product in ((q[2], qk), (node.x(1)[2], qk), (node.x(2)[2], vo), (node.out()[2], vo)):
        node.unify(axis, product)
    for x in (q, node.x(1), node.x(2)):
        node.freeze(x[1])
    for axis in node.axes(3) or ():
        node.unify(axis, Sum((qk, qk, vo)))
    bias = node.axes(5)
    if bias and size(bias[1]) > 1:
        node.unify(bias[1], heads)
    for i, d in ((6, width), (7, v_width)):
        _cache(node, node.axes(i), heads, d)
        _cache(node, node.out(i - 5), heads, d)
    node.attr_follows("num_heads", heads)
    node.attr_stays("scale", 1 / math.sqrt(width.size), width)


@axes("Attention", domain=CONTRIB)
def fused_attention(node: Context) -> None:
    """Input `b s i`, weights `i (q + k + v)`, bias, mask, past `2 b h p d`, position bias."""
    x, w, out = node.x(0), node.x(1), node.out()
    heads = Dim(node.attr("num_heads"))
    each = node.attr("qkv_hidden_sizes", [size(w[1]) // 3] * 3)
    width, v_width = Dim(each[0] // heads.size), Dim(each[2] // heads.size)
    qk, vo = Product((heads, width)), Product((heads, v_width))
    node.unify(x[2], w[0])
    node.unify(w[1], Sum((qk, qk, vo)))
    for axis in node.axes(2) or ():
        node.unify(axis, w[1])
    node.unify(out[2], vo)
    node.freeze(x[1])
    if node.has(4) or node.out(1):
        for axis in (heads, width, v_width):
            node.freeze(axis, "Attention keeps a cache of it")
    if node.attr("do_rotary", 0):
        node.freeze(width, "positions are encoded along it")
    node.attr_follows("num_heads", heads)
    node.attr_follows("qkv_hidden_sizes", [qk, qk, vo])
    if "qkv_hidden_sizes" not in node.node.attributes:
        # Without the attribute the three widths are equal, and the kernel takes a third of the weights for each.
        node.unify(width, v_width)
    node.attr_stays("scale", 1 / math.sqrt(width.size), width)


@axes("GroupQueryAttention", domain=CONTRIB)
def group_query_attention(node: Context) -> None:
    """Query `b s (kv r d)`, key and value `b s (kv d)`, or all in the query; caches `b kv p d`."""
    q, out = node.x(0), node.out()
    kv = Dim(node.attr("kv_num_heads"))
    repeats = Dim(node.attr("num_heads") // kv.size)
    q_heads = Product((kv, repeats))
    width: Axis = Dim(
        node.shape(0)[2] // (repeats.size * kv.size + (0 if node.has(1) else 2 * kv.size))
    )
    scale = 1 / math.sqrt(size(width))
    node.unify(width, Product((Dim(size(width) // 8), Dim(8, "its kernel takes multiples of 8"))))
    query, cached = Product((q_heads, width)), Product((kv, width))
    if node.has(1):
        for i, product in ((0, query), (1, cached), (2, cached)):
            node.unify(node.x(i)[2], product)
    else:
        node.unify(q[2], Sum((query, cached, cached)))
    node.unify(out[2], query)
    for i in (3, 4):
        _cache(node, node.axes(i), kv, width)
        _cache(node, node.out(i - 2), kv, width)
    node.freeze(q[1])
    if node.attr("do_rotary", 0):
        node.freeze(width, "positions are encoded along it")
    node.attr_follows("num_heads", q_heads)
    node.attr_follows("kv_num_heads", kv)
    node.attr_stays("scale", scale, width)


def _cache(node: Context, cache: tuple[Axis, ...] | None, heads: Axis, width: Axis) -> None:
    """A cache of `b h p d`."""
    if cache:
        node.unify(cache[1], heads)
        node.freeze(cache[2])
        node.unify(cache[3], width)
