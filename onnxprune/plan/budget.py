"""Budgets: what each index of a Dim costs in the currency of a target.

A cost is a sum of terms (nodes, or weights), each a function of how many indices a few Dims keep; so what an index
costs is asked of the few terms that its Dim is part of, as often as a search likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.dims import Axis, Dim, Tracing, leaves, size
from onnxprune.graph.cost import LEARNED, Shape, node_macs

__all__ = [
    "COSTS",
    "Cost",
    "Kept",
    "Term",
    "bytes_cost",
    "macs_cost",
    "nodes_cost",
    "params_cost",
]

Kept = Mapping[Dim, int]


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of a cost and the Dims that it depends on."""

    dims: frozenset[Dim]
    cost: Callable[[Kept], float]


class Cost:
    """A sum of terms."""

    def __init__(self, terms: Sequence[Term], constant: float = 0.0) -> None:
        self.terms, self.constant = terms, constant
        self.of: dict[Dim, list[Term]] = {}
        for term in terms:
            for dim in term.dims:
                self.of.setdefault(dim, []).append(term)

    def total(self, kept: Kept) -> float:
        """The cost when Dims keep so many indices."""
        return self.constant + sum(term.cost(kept) for term in self.terms)

    def saved(self, kept: Kept, dim: Dim, count: int) -> float:
        """What it saves if one Dim keeps only `count`."""
        terms = self.of.get(dim, ())
        fewer = {**kept, dim: count}
        return sum(term.cost(kept) - term.cost(fewer) for term in terms)


def _dims(axes: Sequence[Axis]) -> frozenset[Dim]:
    return frozenset(dim for axis in axes for dim in leaves(axis))


def macs_cost(tracing: Tracing) -> Cost:
    """Multiply-accumulates of one run."""
    return nodes_cost(tracing, node_macs)


def nodes_cost(
    tracing: Tracing, of: Callable[[ir.Node, Mapping[ir.Value, Shape]], float | None]
) -> Cost:
    """What a function says of every node, from the shapes of its inputs and its first output."""
    terms = []
    for node in tracing.model.graph.all_nodes():
        values = [*node.inputs, *node.outputs[:1]]
        axes = [
            *(tracing.input_axes(node, k) for k in range(len(node.inputs))),
            tracing.axes.get(node.outputs[0]),
        ]
        pairs = [
            (v, a) for v, a in zip(values, axes, strict=True) if v is not None and a is not None
        ]

        def cost(
            kept: Kept,
            node: ir.Node = node,
            pairs: Sequence[tuple[ir.Value, Sequence[Axis]]] = pairs,
        ) -> float:
            return of(node, {v: tuple(size(axis, kept) for axis in a) for v, a in pairs}) or 0

        if cost({}):
            terms.append(Term(_dims([axis for _, a in pairs for axis in a]), cost))
    return Cost(terms)


def params_cost(tracing: Tracing) -> Cost:
    """Elements of learned tensors; one that several nodes read counts once."""
    return _weights_cost(tracing, lambda _weight: 1.0)


def bytes_cost(tracing: Tracing) -> Cost:
    """Bytes of learned tensors."""
    return _weights_cost(tracing, lambda weight: weight.dtype.bitwidth / 8)


def _weights_cost(tracing: Tracing, unit: Callable[..., float]) -> Cost:
    terms, seen = [], set()
    for use in tracing.uses:
        if use.weight.value in seen or use.weight.dtype not in LEARNED:
            continue
        seen.add(use.weight.value)

        def cost(
            kept: Kept, axes: Sequence[Axis] = use.axes, each: float = unit(use.weight)
        ) -> float:
            return each * math.prod(size(axis, kept) for axis in axes)

        terms.append(Term(_dims(use.axes), cost))
    return Cost(terms)


COSTS: Mapping[str, Callable[[Tracing], Cost]] = {
    "macs": macs_cost,
    "params": params_cost,
    "bytes": bytes_cost,
}
