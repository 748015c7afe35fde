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
    "OutOfReachError",
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


class OutOfReachError(NothingToPruneError):
    """A target that cannot be reached.

    Args:
        target: What was asked for.
        left: The least that can be left, as a fraction.
        kind: Of what.
    """

    def __init__(self, target: object, left: float, kind: str) -> None:
        self.left, self.kind = left, kind
        super().__init__(
            f"the target {target} is out of reach: with everything cut that may be, {left:.3f} of the {kind} are"
            " left; see `onnxprune inspect` for what is frozen and why"
        )


class ValidationError(OnnxPruneError):
    """The pruned model is not what it should be; it is never written."""
