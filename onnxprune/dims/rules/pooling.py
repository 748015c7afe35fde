"""Pooling, sampling and resizing: channels pass, positions stay."""

from __future__ import annotations

from onnxprune.dims.axis import size
from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes, specs

specs(
    {
        "AveragePool GlobalAveragePool GlobalMaxPool GlobalLpPool LpPool Crop": "n c _* -> n c _*",
        "GridSample": "n c _*, n _ _* -> n c _*",
        "RoiAlign": "_ c _ _, _ _, _ -> _ c _ _",
        "MaxRoiPool": "_ c _ _, _ _ -> _ c _ _",
        "ImageScaler": "n _ _ _ -> n _ _ _",
    }
)


@axes("MaxPool")
def max_pool(node: Context) -> None:
    """As the others, but its second output counts positions in the whole tensor."""
    if node.output_count > 1 and node.node.outputs[1].uses():
        node.freeze_all("MaxPool gives flat positions")
        return
    x, out = node.x(0), node.out()
    for axis in (*x[2:], *out[2:]):
        node.freeze(axis)
    node.unify(x[0], out[0])
    node.unify(x[1], out[1])


@axes("Resize", "Upsample")
def resize(node: Context) -> None:
    """Axes that keep their size pass; `sizes` names them all, or those of `axes`."""
    x, out = node.x(0), node.out()
    for axis, other in zip(x, out, strict=True):
        if size(axis) == size(other):
            node.unify(axis, other)
        else:
            node.freeze(axis)
            node.freeze(other)
    node.sizes(3, [out[k] for k in node.attr("axes", range(len(out)))])
