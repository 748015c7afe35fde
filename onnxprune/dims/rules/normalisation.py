"""Normalisations: per channel they say nothing new, over channels they make cutting inexact."""

from __future__ import annotations

from onnxprune.dims.axis import Dim, Product, size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs

specs(
    {
        "BatchNormalization": "n c s*, c, c, c, c -> n c s*, c, c, c, c",
        "InstanceNormalization": "n c s~*, c, c -> n c s*",
        "LRN": "n c~ s* -> n c s*",
    }
)
specs(
    {
        "SkipLayerNormalization": "s* c~, s?* c, c, c, c -> s* c, *, *, s* c",
        "SkipSimplifiedLayerNormalization": "s* c~, s?* c, c, c -> s* c, *, *, s* c",
    },
    domain=CONTRIB,
)


@axes("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
@axes("SimplifiedLayerNormalization", domain=CONTRIB)
def layer_normalization(node: Context) -> None:
    """Runs over the axes from `axis` on; scale and bias have them."""
    x = node.x(0)
    over = x[node.attr("axis", -1) % len(x) :]
    for i in range(1, node.input_count):
        for axis, other in zip(reversed(node.axes(i) or ()), reversed(over), strict=False):
            if size(axis) == size(other):
                node.unify(axis, other)
    for axis in over:
        node.inexact(axis, f"{node.op} normalises over it")
    node.set_out(x)
    for i in range(1, node.output_count):
        for axis, other in zip(node.out(i), x, strict=False):
            if size(axis) == size(other):
                node.unify(axis, other)


@axes("GroupNormalization")
def group_normalization(node: Context) -> None:
    """Channels are `groups x width`; it runs over the width. Scale and bias are per channel or (opset 18) per group."""
    x = node.x(0)
    groups = Dim(node.attr("num_groups"))
    width = Dim(size(x[1]) // groups.size)
    node.unify(x[1], Product((groups, width)))
    for i in (1, 2):
        for axis in node.axes(i) or ():
            node.unify(axis, x[1] if size(axis) == size(x[1]) else groups)
    for axis in (width, *x[2:]):
        node.inexact(axis, "GroupNormalization normalises over it")
    node.attr_follows("num_groups", groups)
    node.set_out(x)


@axes("MeanVarianceNormalization")
def mean_variance(node: Context) -> None:
    """Runs over `axes`."""
    x = node.x(0)
    for k in node.attr("axes", [0, 2, 3]):
        node.inexact(x[k], "MeanVarianceNormalization normalises over it")
    node.set_out(x)


@axes("LpNormalization")
def lp_normalization(node: Context) -> None:
    """Zeros add nothing to a norm."""
    node.set_out(node.x(0))


@axes("Softmax", "LogSoftmax", "Hardmax")
def softmax(node: Context) -> None:
    """Zero is no neutral value. Before opset 13, all axes from `axis` on are one."""
    x = node.x(0)
    if node.opset < 13:
        over = x[node.attr("axis", 1) % max(len(x), 1) :]
    else:
        over = (x[node.attr("axis", -1)],)
    for axis in over:
        node.freeze(axis, f"{node.op} runs over it")
    node.set_out(x)
