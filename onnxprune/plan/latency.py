"""What widths cost in time, on this machine.

Contractions are timed one by one at the widths in question (`onnxprune.runtime.layer_times`): their cost is a
staircase that no formula knows. The machine's steps are known, though: between widths that are multiples of them the
time is close to a straight line, so only some of them are measured and the others interpolated.

Everything else (activations, joins, shuffles) is fused or laid out otherwise by onnxruntime before it runs, so it
cannot be timed alone. What each type of operator takes in the whole model is measured, and divided over its nodes by
the elements that they make; operators that onnxruntime made up stand for those that vanished. What is left of a run's
time (starting it, going from kernel to kernel) does not depend on widths.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import onnx_ir as ir

from onnxprune.dims import Dim, Tracing, leaves, size
from onnxprune.dims.carriers import Numbers
from onnxprune.graph.cost import is_contraction, node_macs
from onnxprune.plan.budget import Cost, Kept, Term
from onnxprune.runtime.inputs import random_feed
from onnxprune.runtime.kernels import WHOLE, kernels
from onnxprune.runtime.latency import measure, undisturbed
from onnxprune.runtime.layer import Layer, layer_of
from onnxprune.runtime.layer_times import LayerTimes
from onnxprune.runtime.sessions import session

__all__ = ["Whole", "latency_cost"]

SECONDS = 0.5
"""Spent on timing the whole model, and as much on its kernels."""
POINTS = 8
"""Widths of a Dim that are measured, about; those between are interpolated."""
MOST_DIMS = 2
"""Of a node, that are interpolated over; with more, every combination is measured."""


def latency_cost(
    tracing: Tracing, times: LayerTimes, steps: Mapping[Dim, int], whole: Whole
) -> Cost:
    """Seconds of one run.

    Args:
        tracing: The model.
        times: What layers take.
        steps: Widths between which time is close to a straight line: the multiples of these; 1: it may be a staircase.
        whole: What the whole model takes.
    """
    shapes = {value: tuple(map(size, axes)) for value, axes in tracing.axes.items()}
    shapes |= {use.weight.value: tuple(map(size, use.axes)) for use in tracing.uses}
    found = [
        _Contraction(node, tracing, macs)
        for node in tracing.model.graph
        if (macs := node_macs(node, shapes))
    ]
    per_mac = whole.contractions / max(sum(each.macs for each in found), 1)
    alone = {each: times(each.layer({})) for each in found}
    known = sum(seconds for seconds in alone.values() if seconds is not None)
    strange = per_mac * sum(each.macs for each, seconds in alone.items() if seconds is None)
    scale = max(whole.contractions - strange, 0.0) / known if known else 0.0
    terms = [
        _timed(each, times, steps, scale)
        if alone[each] is not None
        else _proportional(each, per_mac)
        for each in found
    ]
    others = list(_others(tracing, whole, {each.node for each in found}))
    at_rest = whole.seconds - sum(term.cost({}) for term in (*terms, *others))
    return Cost([*terms, *others], max(at_rest, 0.0))


@dataclass(frozen=True)
class Whole:
    """The whole model's time, and where it goes.

    Attributes:
        seconds: Of a run.
        contractions: Of all kernels that multiply.
        others: Of the other kernels, by op.
    """

    seconds: float
    contractions: float
    others: Mapping[str, float]

    @classmethod
    def of(cls, tracing: Tracing, providers: Sequence[str]) -> Whole:
        """Measures the model of a tracing."""
        feed = random_feed(tracing.model, tracing.measured.inputs, 0)
        times = measure([session(tracing.model, providers)], [feed], seconds=SECONDS)
        others: Counter[str] = Counter()
        for kernel in kernels(tracing.model, feed, providers, seconds=SECONDS):
            others[kernel.op] += kernel.seconds  # type: ignore[assignment]
        contractions = sum(
            others.pop(op) for op in list(others) if op == WHOLE or is_contraction(op)
        )
        return cls(undisturbed(times[:, 0]), contractions, others)


class _Contraction:
    """A node that multiplies, and the layer that it is at any widths."""

    def __init__(self, node: ir.Node, tracing: Tracing, macs: int) -> None:
        self.node, self.macs = node, macs
        self.ir_version = tracing.model.ir_version
        self.axes = {k: a for k in range(len(node.inputs)) if (a := tracing.input_axes(node, k))}
        self.shapes = {
            k: tracing.measured.shapes[value]
            for k, value in enumerate(node.inputs)
            if value is not None and k not in self.axes
        }
        self.stored = {
            k: tracing.constants[value]
            for k, value in enumerate(node.inputs)
            if value is not None and value in tracing.constants
        }
        self.sizes = {
            carrier.place: (
                carrier.axes[0],
                node.attributes.get_int(carrier.place, size(carrier.axes[0])),
            )
            for carrier in tracing.carriers
            if isinstance(carrier, Numbers)
            and carrier.node is node
            and isinstance(carrier.place, str)
            and len(carrier.axes) == 1
            and carrier.axes[0] is not None
        }
        every = [axis for axes in self.axes.values() for axis in axes]
        every += tracing.axes.get(node.outputs[0], ())
        self.dims = frozenset(dim for axis in every for dim in leaves(axis) if not dim.frozen)
        self.all_axes = every

    def layer(self, kept: Kept) -> Layer:
        """The node where Dims keep so many indices."""
        shapes = {k: tuple(size(a, kept) for a in axes) for k, axes in self.axes.items()}
        sizes = {n: old * size(a, kept) // size(a) for n, (a, old) in self.sizes.items()}
        return layer_of(self.node, {**self.shapes, **shapes}, self.stored, sizes, self.ir_version)

    def macs_at(self, kept: Kept) -> float:
        """MACs where Dims keep so many indices, as far as they go by its axes."""
        return self.macs * math.prod(
            size(axis, kept) / size(axis) for axis in dict.fromkeys(self.all_axes)
        )


def _timed(each: _Contraction, times: LayerTimes, steps: Mapping[Dim, int], scale: float) -> Term:
    def cost(kept: Kept) -> float:
        return scale * sum(
            share * (times(each.layer(corner)) or 0.0)
            for share, corner in _corners(each.dims, kept, steps)
        )

    return Term(each.dims, cost)


def _proportional(each: _Contraction, per_mac: float) -> Term:
    return Term(each.dims, lambda kept: per_mac * each.macs_at(kept))


def _others(tracing: Tracing, whole: Whole, done: set[ir.Node]) -> Iterator[Term]:
    """What is not a contraction, in proportion to the elements that it makes."""
    nodes = [
        node for node in tracing.model.graph if node not in done and node.op_type != "Constant"
    ]
    made = {node: [a for v in node.outputs if (a := tracing.axes.get(v))] for node in nodes}

    def elements(node: ir.Node, kept: Kept) -> int:
        return sum(math.prod(size(axis, kept) for axis in axes) for axes in made[node])

    here = {node.op_type for node in nodes}
    vanished = [node for node in nodes if node.op_type not in whole.others] or nodes
    for op in (*sorted(here & set(whole.others)), None):
        mine = vanished if op is None else [node for node in nodes if node.op_type == op]
        seconds = (
            sum(each for name, each in whole.others.items() if name not in here)
            if op is None
            else whole.others[op]
        )
        total = sum(elements(node, {}) for node in mine)
        for node in mine if total and seconds else ():
            dims = frozenset(d for axes in made[node] for a in axes for d in leaves(a))

            def cost(kept: Kept, node: ir.Node = node, rate: float = seconds / total) -> float:
                return rate * elements(node, kept)

            yield Term(dims, cost)


def _corners(
    dims: frozenset[Dim], kept: Kept, steps: Mapping[Dim, int]
) -> Iterator[tuple[float, dict[Dim, int]]]:
    """The widths measured around the widths in question, with their shares."""
    cut = [dim for dim in dims if kept.get(dim, dim.size) < dim.size]
    if len(cut) > MOST_DIMS:
        yield 1.0, {dim: kept[dim] for dim in cut}
        return
    sides = []
    for dim in cut:
        low, high = _around(kept[dim], dim.size, steps.get(dim, 1))
        share = (kept[dim] - low) / (high - low) if high > low else 1.0
        sides.append([(dim, n, s) for n, s in ((low, 1 - share), (high, share)) if s > 0])
    for corner in product(*sides):
        yield math.prod(s for *_, s in corner), {dim: n for dim, n, _ in corner}


def _around(kept: int, whole: int, step: int) -> tuple[int, int]:
    """The nearest widths that are measured, below and above."""
    stride = step * max(1, round(whole / POINTS / step))
    if step == 1 or kept % step or kept < stride:
        return kept, kept
    low = kept // stride * stride
    return (low, low) if low == kept else (low, min(low + stride, whole))
