"""The steps of the pipeline that are more than one call."""

from onnxprune.steps.comparison import compared, random_inputs, samples
from onnxprune.steps.layers import layer_rows
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.progressive import progressive
from onnxprune.steps.way import kept_steps, pruned
from onnxprune.steps.within_drop import within_drop

__all__ = [
    "Outcome",
    "compared",
    "kept_steps",
    "layer_rows",
    "progressive",
    "pruned",
    "random_inputs",
    "samples",
    "within_drop",
]
