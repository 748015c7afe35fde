"""Frames of a signal, and what is in them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxprune.autodiff.builder import Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call


@defined("STFT")
def stft(call: Call) -> Sequence[Tensor]:
    """Short-time Fourier transform of batch x samples x 1 (or 2), or, as onnxruntime has it too, batch x samples."""
    op, (x, step) = call.op, call.inputs[:2]
    shape = op.shape_of(x)
    parts = op.constant(np.array([-1]))
    x = op.Reshape(x, op.Concat(op.Slice(shape, [0], [2], [0]), parts, axis=0))
    window, length = call.input(2), call.input(3)
    if length is None and window is None:
        raise call.error("it has neither a window nor a frame length")
    size = op.Shape(window) if length is None else op.reshape(length, [1])
    samples = op.Slice(shape, [1], [2], [0])
    stride = op.Cast(op.reshape(step, [1]), to=7)
    size = op.Cast(size, to=7)
    zero, one = (op.constant(np.array(k)) for k in (0, 1))
    count = (samples - size) / stride + 1
    starts = op.Range(zero, op.Squeeze(count, [0]), one) * stride
    places = op.Unsqueeze(starts, [1]) + op.Range(zero, op.Squeeze(size, [0]), one)
    frames = op.Gather(x, places, axis=1)  # batch x frames x size x parts
    if window is not None:
        frames = frames * op.Unsqueeze(window, [1])
    onesided = call.int("onesided", 1)
    if op.graph.opset_imports[""] < 20:
        return [op.DFT(frames, axis=2, onesided=onesided)]
    return [op.DFT(frames, None, op.constant(np.array(2)), onesided=onesided)]
