"""What a cut removes, in the names of the input file: the plan's `removed` and `copies`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxprune.dims import Keep, Tracing, Use
from onnxprune.dims.cut import by_cut, masks_of

__all__ = ["Removed", "copies", "removed"]

Removed = dict[str, list[int]]
"""Axis to indices, as JSON takes it."""


def removed(tracing: Tracing, keep: Keep) -> dict[str, Removed]:
    """What is removed, as tensor name -> axis -> indices: the plan's format.

    A tensor whose uses are cut differently is among the `copies`.
    """
    return {
        weight.name: _gone(groups[0], keep)
        for weight, groups in by_cut(tracing, keep)
        if len(groups) == 1 and _gone(groups[0], keep)
    }


def copies(tracing: Tracing, keep: Keep) -> dict[str, list[dict[str, Any]]]:
    """What is removed from tensors whose uses are cut differently, each of which gets a copy of its own.

    Returns:
        For the name of each such tensor what its copies lose (`removed`, as above), and which nodes read them
        (`readers`: the first output of the node, the index of the input). Nodes not named read the whole tensor.
    """
    return {
        weight.name: [
            {
                "readers": [[use.node.outputs[0].name, use.index] for use in group if use.node],
                "removed": _gone(group, keep),
            }
            for group in groups
            if _gone(group, keep)
        ]
        for weight, groups in by_cut(tracing, keep)
        if len(groups) > 1
    }


def _gone(group: Sequence[Use], keep: Keep) -> Removed:
    masks = enumerate(masks_of(group[0], keep))
    return {str(k): np.flatnonzero(~mask).tolist() for k, mask in masks if not mask.all()}
