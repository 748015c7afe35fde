"""Normalisations: per channel they say nothing new, over channels they make cutting inexact."""

from __future__ import annotations

from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.spec import Spec

specs(
    {
        "InstanceNormalization": "n c s~*, c, c -> n c s*",
        "LRN": "n c~ s* -> n c s*",
    }
)
specs(
    {
        "SkipLayerNormalization": "s* c~, s* c, c, c, c -> s* c, *, *, s* c",
        "SkipSimplifiedLayerNormalization": "s* c~, s* c, c, c -> s* c, *, *, s* c",
    },
    domain=CONTRIB,
)
_BATCH, _LIVE = (
    Spec.parse(f"{x}, c, c, c, c -> n c s*, c, c, c, c") for x in ("n c s*", "n~ c s~*")
)


@axes("BatchNormalization")
def batch_normalization(node: Context) -> None:
    """With live statistics, as exporters standardise weights, it runs over all axes but that of the channels."""
    (_LIVE if node.attr("training_mode", 0) else _BATCH).apply(node)


_GROUPS = "n (g w~) s~*, {0}, {0} -> n (g w) s*; num_groups=g"
_PER_GROUP, _PER_CHANNEL = (Spec.parse(_GROUPS.format(scale)) for scale in ("g", "(g w)"))


@axes("GroupNormalization")
def group_normalization(node: Context) -> None:
    """It runs over the channels of a group. Scale and bias are per channel or (opset 18) per group."""
    (_PER_CHANNEL if node.shape(1)[0] == node.shape(0)[1] else _PER_GROUP).apply(node)


@axes("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
@axes("SimplifiedLayerNormalization", domain=CONTRIB)
def layer_normalization(node: Context) -> None:
    """Runs over the axes from `axis` on; scale and bias have them, the means the others."""
    x = node.x(0)
    for axis in x[node.attr("axis", -1) % len(x) :]:
        node.inexact(axis, f"{node.op} normalises over it")
    node.set_out(x)
    node.broadcast(range(1, node.input_count))
    for i in range(1, node.output_count):
        node.meet(node.out(i), x)


@axes("MeanVarianceNormalization")
def mean_variance(node: Context) -> None:
    """Runs over `axes`."""
    x = node.x(0)
    for k in node.attr("axes", [0, 2, 3]):
        node.inexact(x[k], "MeanVarianceNormalization normalises over it")
    node.set_out(x)


@axes("Softmax", "LogSoftmax", "Hardmax")
@axes("QLinearSoftmax", domain=CONTRIB)
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
