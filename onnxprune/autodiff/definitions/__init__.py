"""Ops, and forms of ops, written out in simpler ones where ONNX gives them no function.

A rule for each would repeat those of what they are made of. So they are replaced, and differentiated as
what they become:

    recurrent     unusual LSTM, GRU and RNN: step by step
    regions       DeformConv, RoiAlign and MaxRoiPool: reading where offsets and boxes say
    quantised     QLinear ops: DequantizeLinear, the op on real numbers, QuantizeLinear
    fused         what onnxruntime's optimiser makes of others
    signals       STFT: frames, times the window, DFT

The values and their types are known (`shapes.py`) when this runs. Importing this fills the table.
"""

from onnxprune.autodiff.definitions import fused, quantised, recurrent, regions, signals
from onnxprune.autodiff.definitions.table import definitions, write_out

__all__ = [
    "definitions",
    "fused",
    "quantised",
    "recurrent",
    "regions",
    "signals",
    "write_out",
]
