"""Channels that do nothing, found in the weights alone: what is constant goes into biases, what nobody feels is cut."""

from onnxprune.fold.constants import Known, known_constants
from onnxprune.fold.dead import dead_indices
from onnxprune.fold.into_biases import Folded, fold_constants

__all__ = ["Folded", "Known", "dead_indices", "fold_constants", "known_constants"]
