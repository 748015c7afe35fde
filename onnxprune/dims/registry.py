"""The registry of axis rules: what each op says about the axes of its inputs and outputs.

A rule is either a *spec*, a line in the spirit of einops (Rogozhnikov, ICLR 2022) that `spec.py` explains, or a
function that takes a `Context`. Rules fill one plain dictionary keyed by `(domain, op_type)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from onnxprune.dims.spec import Spec

if TYPE_CHECKING:
    from onnxprune.dims.context import Context

__all__ = ["CONTRIB", "Rule", "axes", "rule_for", "specs"]

Rule = Callable[["Context"], object]
CONTRIB = "com.microsoft"

_RULES: dict[tuple[str, str], Rule] = {}


def axes(*ops: str, domain: str = "") -> Callable[[Rule], Rule]:
    """Registers a function as the rule of some ops."""

    def register(rule: Rule) -> Rule:
        for op in ops:
            _add(domain, op, rule)
        return rule

    return register


def specs(table: Mapping[str, str], domain: str = "") -> None:
    """Registers a table from op names (several separated by spaces) to specs."""
    for ops, text in table.items():
        spec = Spec.parse(text)
        for op in ops.split():
            _add(domain, op, spec.apply)


def rule_for(domain: str, op_type: str) -> Rule | None:
    """The rule of an op, or None. `ai.onnx` is the default domain."""
    return _RULES.get(("" if domain == "ai.onnx" else domain, op_type))


def registered() -> set[tuple[str, str]]:
    """Every `(domain, op_type)` that has a rule."""
    return set(_RULES)


def _add(domain: str, op: str, rule: Rule) -> None:
    if (domain, op) in _RULES:
        raise ValueError(f"{domain or 'ai.onnx'}::{op} already has an axis rule")
    _RULES[domain, op] = rule
