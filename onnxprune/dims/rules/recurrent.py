"""Recurrent layers: the hidden units of all gates, directions and states are one Dim."""

from __future__ import annotations

from onnxprune.dims.registry import CONTRIB, specs

# X, W, R, B, lengths, states and peepholes -> Y and the last states; `layout` puts the batch first.
_OPS = {
    "RNN": "{x}, d! h i, d! h h, d! (2 h), b, {s} -> {y}, {s}",
    "GRU": "{x}, d! (3 h) i, d! (3 h) h, d! (6 h), b, {s} -> {y}, {s}",
    "LSTM": "{x}, d! (4 h) i, d! (4 h) h, d! (8 h), b, {s}, {s}, d! (3 h) -> {y}, {s}, {s}",
}
_BATCH_FIRST = {"x": "b t! i", "y": "b t! d! h", "s": "b d! h"}
_TIME_FIRST = {"x": "t! b i", "y": "t! d! b h", "s": "d! b h"}

specs(
    {
        op: f"layout: {text.format(**_BATCH_FIRST)} | {text.format(**_TIME_FIRST)}; hidden_size=h"
        for op, text in _OPS.items()
    }
)
# With a scale and a zero point for W and for R, of a direction or of each of its gates' units.
_QUANTISED = (
    "t! b i, d! i (4 h), d! h (4 h), d! (8 h), b, d! b h, d! b h, d! (3 h), {0}, {0}, {0}, {0}"
    " -> t! d! b h, d! b h, d! b h"
)
specs(
    {
        "DynamicQuantizeLSTM": f"{_QUANTISED.format('d!')} | {_QUANTISED.format('d! (4 h)')}; hidden_size=h"
    },
    domain=CONTRIB,
)
