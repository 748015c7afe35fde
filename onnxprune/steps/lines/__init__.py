"""What the loops over steps know of a granularity: how models of it follow each other."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from onnxprune.options import Channel, Layer, PruneOptions
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.lines.channels import Channels, ChannelsKept
from onnxprune.steps.lines.layers import Layers
from onnxprune.steps.lines.line import Line, Stage
from onnxprune.steps.lines.zeros import Zeros

__all__ = ["Channels", "ChannelsKept", "Layers", "Line", "Stage", "Zeros", "line_of"]


def line_of(model: ir.Model, data: Dataset, options: PruneOptions) -> Line[Any]:
    """The line that begins with a model without local functions."""
    if isinstance(options.granularity, Channel):
        return Channels(model, data, options)
    if isinstance(options.granularity, Layer):
        return Layers(model, data, options)
    return Zeros(model, options)
