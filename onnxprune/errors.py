"""What can go wrong, as exceptions whose message is one line for the user.

Every message says what is wrong, where, and what to do about it. The command line prints it after `error:` and
exits with 1; nothing else of the program's own making reaches the user as a traceback.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "ModelError",
    "NothingToPruneError",
    "OnnxPruneError",
    "OptionError",
    "ProviderError",
    "ValidationError",
]


class OnnxPruneError(Exception):
    """Base of every error that the program raises on purpose."""


class ModelError(OnnxPruneError):
    """The model file cannot be read, is not valid ONNX, or onnxruntime does not run it."""


class DataError(OnnxPruneError):
    """The data set does not fit the model: a missing input, a wrong shape or type, NaN, labels out of range."""


class OptionError(OnnxPruneError, ValueError):
    """An option has a value that makes no sense, alone or with the others."""


class ProviderError(OnnxPruneError):
    """The execution provider asked for is not available on this machine."""


class NothingToPruneError(OnnxPruneError):
    """Nothing in the model can be removed under the options given; the message says why."""


class ValidationError(OnnxPruneError):
    """The pruned model is not what it should be; it is never written."""
