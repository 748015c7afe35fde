"""Gradients of a model's loss, sampled over a data set, one sample at a time."""

from onnxprune.sampling.elements import element_statistics
from onnxprune.sampling.gates import Gate, Gates, gates
from onnxprune.sampling.objective import LogLikelihood, Objective, Projection, objective
from onnxprune.sampling.quadratic import Forms, Quadratic, SignedSums, Way

__all__ = [
    "Forms",
    "Gate",
    "Gates",
    "LogLikelihood",
    "Objective",
    "Projection",
    "Quadratic",
    "SignedSums",
    "Way",
    "element_statistics",
    "gates",
    "objective",
]
