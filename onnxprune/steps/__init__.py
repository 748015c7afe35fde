"""The steps of the pipeline that are more than one call."""

from onnxprune.steps.channels import remove_channels
from onnxprune.steps.comparison import compared, random_inputs
from onnxprune.steps.outcome import Outcome
from onnxprune.steps.training import trained
from onnxprune.steps.zeros import zero_weights

__all__ = ["Outcome", "compared", "random_inputs", "remove_channels", "trained", "zero_weights"]
