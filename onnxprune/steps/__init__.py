"""The steps of the pipeline that are more than one call."""

from onnxprune.steps.comparison import compared, random_inputs
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.way import kept_steps, pruned

__all__ = ["Outcome", "compared", "kept_steps", "pruned", "random_inputs"]
