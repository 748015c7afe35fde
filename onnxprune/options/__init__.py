"""Every choice of a pruning run as one frozen value, checked when it is made.

How a model is trained is said in `train.options`.
"""

from onnxprune.options.granularity import (
    NM,
    Block,
    Channel,
    Granularity,
    Layer,
    Unstructured,
    parse_granularity,
)
from onnxprune.options.prune import (
    DEFAULT_SPARSITY,
    PruneOptions,
    Recover,
    Rewind,
    ScheduleName,
    Scope,
    check_report,
    parse_shape,
)
from onnxprune.options.target import KINDS, Target, parse_target

__all__ = [
    "DEFAULT_SPARSITY",
    "KINDS",
    "NM",
    "Block",
    "Channel",
    "Granularity",
    "Layer",
    "PruneOptions",
    "Recover",
    "Rewind",
    "ScheduleName",
    "Scope",
    "Target",
    "Unstructured",
    "check_report",
    "parse_granularity",
    "parse_shape",
    "parse_target",
]
