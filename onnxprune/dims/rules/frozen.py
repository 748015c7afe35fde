"""Ops of the default domain that are known to freeze what they touch.

Having them here, with the reason, tells a decision from an omission: a test holds the union of this table and the
rules against the list of all ops.
"""

from __future__ import annotations

from functools import partial

from onnxprune.dims.context import Context
from onnxprune.dims.registry import axes

REASONS = {
    "which indices survive depends on the data": "Compress NonMaxSuppression NonZero Unique",
    "it makes or reads positions": "AffineGrid CenterCropPad Col2Im EyeLike OneHot Range TensorScatter "
    "MaxUnpool",
    "it makes random numbers": "Bernoulli Multinomial RandomNormal RandomNormalLike RandomUniform RandomUniformLike",
    "it transforms along its axes": "BlackmanWindow DFT Det HammingWindow HannWindow MelWeightMatrix STFT",
    "its value is a number of elements": "Size",
    "it holds no plain tensor": "ConcatFromSequence ImageDecoder Optional OptionalGetElement OptionalHasElement "
    "RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap "
    "SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer",
    "it is a loss": "NegativeLogLikelihoodLoss SoftmaxCrossEntropyLoss",
    "it changes the meaning of bytes": "BitCast",
    "its state is a product of keys and values": "LinearAttention",
    "its state makes cutting a question of training": "Adagrad Adam Gradient Momentum",
}


def _freeze(reason: str, node: Context) -> None:
    node.freeze_all(f"{node.op}: {reason}")


for _reason, _ops in REASONS.items():
    axes(*_ops.split())(partial(_freeze, _reason))
