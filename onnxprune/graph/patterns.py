"""Patterns of names that are to be left alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from onnxprune.errors import OptionError
from onnxprune.graph.weights import weights

__all__ = ["LEFT_ALONE", "excluded_weights", "is_left_alone", "is_named", "leave_alone"]

LEFT_ALONE = "left alone"  # model.meta: patterns of the tensors and nodes that nothing may change


def is_named(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether any of the names is one of the patterns (`*`, `?` and `[...]` as in file names, case matters)."""
    return any(
        name == pattern or fnmatchcase(name, pattern) for name in names for pattern in patterns
    )


def excluded_weights(model: ir.Model, patterns: Sequence[str]) -> tuple[str, ...]:
    """The names of the main graph's float weights that patterns name, or that only nodes of such names read."""
    found = []
    for weight in weights(model):
        if weight.graph is not model.graph or not weight.dtype.is_floating_point():
            continue
        readers = {node.name or "" for node, _ in weight.value.uses()}
        alone = bool(readers) and all(is_named([name], patterns) for name in readers)
        if alone or is_named([weight.name], patterns):
            found.append(weight.name)
    return tuple(found)


def is_left_alone(model: ir.Model, names: Iterable[str]) -> bool:
    """Whether one of the names is that of a tensor or node that stays as it is."""
    return is_named(names, model.meta.get(LEFT_ALONE, ()))


def leave_alone(model: ir.Model, patterns: Sequence[str]) -> None:
    """From now on the tensors and nodes of some names stay as they are, in the model and in all that is made of it.

    Raises:
        OptionError: A pattern fits no tensor and no node, as one that is misspelt.
    """
    names = {weight.name for weight in weights(model)}
    names |= {node.name for node in model.graph.all_nodes() if node.name}
    for function in model.functions.values():
        names |= {node.name for node in function.all_nodes() if node.name}
    for pattern in patterns:
        if not is_named(names, [pattern]):
            raise OptionError(f"no tensor and no node of the model is named {pattern!r}")
    model.meta[LEFT_ALONE] = tuple(patterns)
