"""Gradients of a model's loss, sampled over a data set, one sample at a time."""

from onnxprune.sampling.elements import element_statistics
from onnxprune.sampling.gates import Gate, Gates, gates
from onnxprune.sampling.objective import LogLikelihood, Objective, Projection, objective
from onnxprune.sampling.quadratic import Forms, Quadratic, SignedSums, Way
from onnxprune.sampling.use import (
    draws_for,
    element_context,
    loss_note,
    masks_context,
    signed_sums,
    uses_gradients,
)

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
    "draws_for",
    "element_context",
    "element_statistics",
    "gates",
    "loss_note",
    "masks_context",
    "objective",
    "signed_sums",
    "uses_gradients",
]
