"""The rules of differentiation, one an op.

A rule turns the gradients of a node's outputs into the gradients of its inputs (a vector-Jacobian
product):

    @vjp("MatMul")
    def matmul(call: Call, dy: Tensor) -> Gradients:
        ...
        return da, db

It is called with one gradient an output, None where the loss does not depend on that output, and
returns one entry an input, None where there is no gradient. What all rules share is the driver's
work: accumulation, and, for rules registered with `broadcast=True`, summing a gradient of the
output's shape down to the input's. To differentiate an op of another domain, register a rule for
it: `@vjp("MyOp", domain="com.example")`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.errors import OnnxPruneError

__all__ = [
    "Call",
    "Gradients",
    "NoGradientError",
    "Rule",
    "find",
    "no_gradient",
    "registered",
    "vjp",
]


class NoGradientError(OnnxPruneError):
    """Something between a target and the loss has no derivative here; the message names it."""


Gradients = Sequence[Tensor | None]
"""One gradient an input; None where there is none."""


@dataclass(frozen=True)
class Call:
    """One use of an op: what its rule sees.

    Attributes:
        node: The node of the forward graph.
        op: Writes nodes of the backward graph.
        inputs: The node's inputs; None where an optional one is absent.
        outputs: The node's outputs.
        wanted: For each input, whether its gradient is asked for; the others may be left None.
    """

    node: ir.Node
    op: Ops
    inputs: tuple[
        Any, ...
    ]  # of Tensor | None; Any spares every rule an assertion on required inputs
    outputs: tuple[Tensor, ...]
    wanted: tuple[bool, ...]

    @property
    def x(self) -> Tensor:
        """The first input."""
        tensor: Tensor = self.inputs[0]
        return tensor

    @property
    def y(self) -> Tensor:
        """The first output."""
        return self.outputs[0]

    def input(self, index: builtins.int) -> Tensor | None:
        """Input `index`, None if absent."""
        return self.inputs[index] if index < len(self.inputs) else None

    def constant(self, index: builtins.int) -> np.ndarray[Any, Any] | None:
        """The value of an input that must be known now; None if absent.

        Raises:
            NoGradientError: The input is computed at run time.
        """
        tensor = self.input(index)
        if tensor is None:
            return None
        array = tensor.constant()
        if array is None:
            raise self.error(f"input {index} ({tensor.value.name}) must be a constant")
        return array

    def int(self, name: builtins.str, default: builtins.int = 0) -> builtins.int:
        """An integer attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_int()

    def float(self, name: builtins.str, default: builtins.float = 0.0) -> builtins.float:
        """A floating-point attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_float()

    def str(self, name: builtins.str, default: builtins.str = "") -> builtins.str:
        """A string attribute."""
        attribute = self.node.attributes.get(name)
        return default if attribute is None else attribute.as_string()

    def ints(
        self, name: builtins.str, default: Sequence[builtins.int] | None = None
    ) -> list[builtins.int]:
        """An attribute that is a list of integers; without a default it must be there."""
        attribute = self.node.attributes.get(name)
        if attribute is None:
            assert default is not None, name
            return list(default)
        return list(attribute.as_ints())

    def error(self, reason: builtins.str) -> NoGradientError:
        """An error that names this node, to be raised."""
        return NoGradientError(f"no gradient for {describe(self.node)}: {reason}")


Rule = Callable[..., Gradients]
"""`rule(call, *output_gradients)`, one gradient an output."""

AnyRule = TypeVar("AnyRule", bound=Rule)


@dataclass(frozen=True)
class Entry:
    """A registered rule.

    Attributes:
        rule: It.
        broadcast: Its gradients still have the output's (broadcast) shape.
        integer: The op's integer outputs have gradients: they stand for real numbers.
    """

    rule: Rule
    broadcast: bool = False
    integer: bool = False


_RULES: dict[tuple[str, str], Entry] = {}


def vjp(
    *op_types: str, domain: str = "", broadcast: bool = False, integer: bool = False
) -> Callable[[AnyRule], AnyRule]:
    """Register a rule for ops; see the module's text for what a rule is.

    Args:
        *op_types: The ops that the rule is for.
        domain: Their domain, empty for the default one.
        broadcast: The rule returns gradients in the shape of the first output; the driver sums them
            down to each input's shape.
        integer: The ops' integer outputs stand for real numbers, and have gradients.

    Returns:
        A decorator that leaves the rule as it is.

    Raises:
        ValueError: One of the ops has a rule already.
    """

    def register(rule: AnyRule) -> AnyRule:
        for op_type in op_types:
            if (domain, op_type) in _RULES:
                raise ValueError(f"{op_type!r} of domain {domain!r} already has a rule")
            _RULES[domain, op_type] = Entry(rule, broadcast, integer)
        return rule

    return register


def no_gradient(*op_types: str, domain: str = "") -> None:
    """Declare ops whose derivative is zero wherever it exists, or that carry no real numbers."""
    vjp(*op_types, domain=domain)(_zero)


def _zero(call: Call, *_: Tensor | None) -> Gradients:
    return [None] * len(call.inputs)


def find(node: ir.Node) -> Entry | None:
    """The rule for a node, None if its op has none."""
    return _RULES.get((node.domain, node.op_type))


def is_constant_op(node: ir.Node) -> bool:
    """Whether no gradient ever passes through this node."""
    entry = find(node)
    return entry is not None and entry.rule is _zero


def registered() -> set[tuple[str, str]]:
    """The `(domain, op_type)` of every op that has a rule."""
    return set(_RULES)


def describe(node: ir.Node) -> str:
    """A node as messages name it."""
    op_type = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{op_type} (node {node.name or node.outputs[0].name!r})"
