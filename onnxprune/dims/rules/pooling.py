"""Pooling, sampling and resizing: channels pass, positions stay."""

from __future__ import annotations

from onnxprune.dims.axis import size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.spec import Spec

_POOL = "n c _* -> n c _*"
specs(
    {
        "AveragePool GlobalAveragePool GlobalMaxPool GlobalLpPool LpPool Crop": _POOL,
        "GridSample": "n c _*, n _ _* -> n c _*",
        "RoiAlign": "_ c _ _, _ _, _ -> _ c _ _",
        "MaxRoiPool": "_ c _ _, _ _ -> _ c _ _",
        "ImageScaler": "n _ _ _ -> n _ _ _",
    }
)
specs(
    {"QLinearAveragePool QLinearGlobalAveragePool": f"channels_last: n _* c -> n _* c | {_POOL}"},
    domain=CONTRIB,
)


@axes("MaxPool")
def max_pool(node: Context) -> None:
    """As the others, but its second output counts positions in the whole tensor."""
    if node.output_count > 1 and node.node.outputs[1].uses():
        node.freeze_all("MaxPool gives flat positions")
    else:
        Spec.parse(_POOL).apply(node)


@axes("Resize", "Upsample")
def resize(node: Context) -> None:
    """Axes that keep their size pass; `sizes` names them all, or those of `axes`."""
    x, out = node.x(0), node.out()
    node.meet(x, out)
    for axis, other in zip(x, out, strict=True):
        if size(axis) != size(other):
            node.freeze(axis)
            node.freeze(other)
    node.follows(3, [out[k] for k in node.attr("axes", range(len(out)))])
