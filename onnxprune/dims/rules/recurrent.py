"""Recurrent layers: the hidden units of all gates, directions and states are one Dim."""

from __future__ import annotations

from onnxprune.dims.context import Context
from onnxprune.dims.registry import CONTRIB, axes, specs
from onnxprune.dims.spec import Spec

_STATES = {
    "RNN": "d! h i, d! h h, d! (2 h), b, {s} -> {y}, {s}",
    "GRU": "d! (3 h) i, d! (3 h) h, d! (6 h), b, {s} -> {y}, {s}",
    "LSTM": "d! (4 h) i, d! (4 h) h, d! (8 h), b, {s}, {s}, d! (3 h) -> {y}, {s}, {s}",
}
_LAYOUTS = (("t! b i", "t! d! b h", "d! b h"), ("b t! i", "b t! d! h", "b d! h"))
_SPECS = {
    (op, layout): Spec.parse(f"{x}, {text.format(y=y, s=s)};;hidden_size=h")
    for op, text in _STATES.items()
    for layout, (x, y, s) in enumerate(_LAYOUTS)
}
specs(
    {
        "DynamicQuantizeLSTM": "t! b i, d! i (4 h), d! h (4 h), d! (8 h), b, d! b h, d! b h, d! (3 h), d! (4 h), "
        "d! (4 h), d! (4 h), d! (4 h) -> t! d! b h, d! b h, d! b h;; hidden_size=h"
    },
    domain=CONTRIB,
)


@axes("RNN", "GRU", "LSTM")
def recurrent(node: Context) -> None:
    """X, W, R, B, lengths, states and peepholes; `layout` puts the batch first."""
    _SPECS[node.op, node.attr("layout", 0)].apply(node)
