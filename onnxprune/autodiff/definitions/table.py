"""The table of definitions, and putting them in the place of what they define."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call
from onnxprune.autodiff.rewrite import rewrite

__all__ = ["Definition", "defined", "definitions", "write_out"]

Definition = Callable[[Call], Sequence[Tensor]]
"""Writes what a node computes; one tensor an output."""

_TABLE: dict[tuple[str, str], tuple[Callable[[ir.Node], bool], Definition]] = {}


def defined(
    *op_types: str, domain: str = "", where: Callable[[ir.Node], bool] = lambda _: True
) -> Callable[[Definition], Definition]:
    """Register a definition of ops.

    Args:
        *op_types: The ops.
        domain: Their domain, empty for the default one.
        where: The nodes of them that it is for; the others have a rule.

    Returns:
        A decorator that leaves the definition as it is.
    """

    def register(definition: Definition) -> Definition:
        _TABLE.update({(domain, op_type): (where, definition) for op_type in op_types})
        return definition

    return register


def definitions() -> set[tuple[str, str]]:
    """The `(domain, op_type)` of every op that has a definition."""
    return set(_TABLE)


def write_out(model: ir.Model, prefix: str) -> bool:
    """Replace, in place, the nodes of the main graph that have a definition.

    Args:
        model: Its values have types and shapes.
        prefix: Start of the names of new values, which no other name starts with.

    Returns:
        Whether there was any.
    """

    def written(op: Ops, node: ir.Node) -> Sequence[Tensor]:
        inputs = tuple(None if v is None else Tensor(v, op) for v in node.inputs)
        outputs = tuple(Tensor(v, op) for v in node.outputs)
        call = Call(node, op, inputs, outputs, (False,) * len(inputs))
        return _TABLE[node.domain, node.op_type][1](call)

    return rewrite(model, prefix, _applies, written)


def _applies(node: ir.Node) -> bool:
    entry = _TABLE.get((node.domain, node.op_type))
    return entry is not None and entry[0](node)
