"""Models as graphs: reading and writing files, the weights in them, and what they cost."""

from onnxprune.graph.inline import NAMES, clone, inline
from onnxprune.graph.load import load
from onnxprune.graph.save import check_spared, check_target, data_file, file_bytes, same_file, save
from onnxprune.graph.weights import Weight, constant, replace, weights

__all__ = [
    "NAMES",
    "Weight",
    "check_spared",
    "check_target",
    "clone",
    "constant",
    "data_file",
    "file_bytes",
    "inline",
    "load",
    "replace",
    "same_file",
    "save",
    "weights",
]
