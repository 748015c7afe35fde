"""What there is to repair in a pruned model: each contraction that the cut has reached, and what it should give.

A job is a contraction of the original with its twin in the pruned model. Its target is what the original gives at the
same place. Where the sums go straight into an Add whose other operand is already there (the last convolution of a
residual block), it is what makes the *sum* right: the original's sum less the pruned model's other operand.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.biases import Bias, bias_of
from onnxprune.calibrate.contraction import Contraction, contractions
from onnxprune.calibrate.views import View, view_of
from onnxprune.dims import Keep, Tracing, keep_mask
from onnxprune.graph.flow import read_values
from onnxprune.graph.patterns import is_left_alone

__all__ = ["Job", "affected_jobs", "bias_place", "own_bias", "twin_groups"]

Array = np.ndarray


def affected_jobs(
    tracing: Tracing, keep: Keep, pruned: ir.Model, changed: Collection[str] = ()
) -> list[Job]:
    """The contractions whose input is not what it was, in graph order; not those whose weight is shared or excluded.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What was made of the two.
        changed: Names of values that are other ones in the pruned model, besides.
    """
    found = [each for each in contractions(tracing) if each.output is not None]
    twins = _twins(pruned)
    reached = _affected(tracing, keep, found, changed)
    jobs = (_job(each, tracing, keep, twins, found) for each in reached)
    return [job for job in jobs if job and not is_left_alone(tracing.model, job.each.names)]


@dataclass(frozen=True, eq=False)
class Job:
    """A contraction, its twin in the pruned model, and where its target is.

    Attributes:
        each: The contraction of the original.
        twin: The node of the pruned model.
        view: Its weight there.
        data: What that reads.
        target: The value of the original that is the target.
        other: The operand in the pruned model that an Add adds to what the twin gives, if the target is a sum.
        inputs: Which columns are left.
        outputs: Which outputs are left.
        rank: How many axes the target has.
        ir_version: Of the model.
    """

    each: Contraction
    twin: ir.Node
    view: View
    data: ir.Value
    target: ir.Value
    other: ir.Value | None
    inputs: Array
    outputs: Array
    rank: int
    ir_version: int


def _twins(pruned: ir.Model) -> dict[str, ir.Node]:
    return {value.name: node for node in pruned.graph for value in node.outputs if value.name}


def _job(
    each: Contraction,
    tracing: Tracing,
    keep: Keep,
    twins: Mapping[str, ir.Node],
    found: Sequence[Contraction],
) -> Job | None:
    """What to fit, and to what; None where the weight is shared, its twin is read differently, or positions went."""
    assert each.output is not None
    twin = twins.get(each.output.name or "")
    value = twin.inputs[each.index] if twin is not None else None
    data = twin.inputs[list(each.node.inputs).index(each.data)] if twin is not None else None
    view = view_of(value) if value is not None else None
    if twin is None or view is None or view.shared or data is None:
        return None
    target, other = each.output, None
    add = _closing_add(each, tracing, found)
    if add is not None:
        node, k = add
        theirs = twins.get(node.outputs[0].name or "")
        beside = None if theirs is None else theirs.inputs[k]
        if beside is not None and view_of(beside) is None:  # not the mean of a layer left out
            target, other = node.outputs[0], beside
    axes = tracing.axes.get(target, ())
    place = {"conv": 1, "left": len(axes) - 2}.get(each.kind, len(axes) - 1)
    if not all(keep_mask(axis, keep).all() for k, axis in enumerate(axes) if k != place):
        return None
    inputs = np.repeat(keep_mask(each.input_axis, keep), each.taps)
    outputs = keep_mask(each.output_axis, keep)
    rank = len(tracing.measured.shapes[target])
    version = tracing.model.ir_version
    return Job(each, twin, view, data, target, other, inputs, outputs, rank, version)


def _closing_add(
    each: Contraction, tracing: Tracing, found: Sequence[Contraction]
) -> tuple[ir.Node, int] | None:
    """The Add that y goes into, alone, and which operand is the other one, where that is known before y."""
    assert each.output is not None
    uses = each.output.uses()
    if len(uses) != 1 or each.output.is_graph_output():
        return None
    ((node, index),) = uses
    if node.op_type != "Add" or node.graph is not tracing.model.graph:
        return None
    other = node.inputs[1 - index]
    shapes = tracing.measured.shapes
    if (
        other is None
        or other not in shapes
        or shapes[other] != shapes[each.output]
        or view_of(other) is not None
    ):
        return None
    place = {n: k for k, n in enumerate(tracing.model.graph)}
    mine = {one.node for one in found}
    before = [n for n in _ancestors(other) if n in mine]
    return (node, 1 - index) if all(place[n] < place[each.node] for n in before) else None


def _ancestors(value: ir.Value) -> set[ir.Node]:
    found: set[ir.Node] = set()
    queue = [value]
    while queue:
        node = queue.pop().producer()
        if node is not None and node not in found:
            found.add(node)
            queue += read_values(node)
    return found


def _affected(
    tracing: Tracing, keep: Keep, found: Sequence[Contraction], changed: Collection[str]
) -> list[Contraction]:
    """The contractions whose input is not what it was.

    A Dim of it was cut, something before it was re-fitted, or is another value besides.
    """
    moved: set[ir.Value] = set()
    touched = {}
    by_node = {each.node: each for each in found}
    for node in tracing.model.graph:
        each = by_node.get(node)
        reads = any(value in moved for value in read_values(node))
        if each is not None and (reads or not keep_mask(each.input_axis, keep).all()):
            touched[each.node] = each
            reads = True
        if reads:
            moved.update(node.outputs)
        moved.update(value for value in node.outputs if value.name in changed)
    return list(touched.values())


def bias_place(job: Job, make: bool = False) -> Bias | None:
    """Where a constant is added to what the twin gives; `make`: an Add may be put behind a matrix product."""
    return bias_of(job.each, job.twin, int(job.outputs.sum()), make=make)


def own_bias(job: Job) -> Bias | None:
    """The same, unless it is added to a sum of two branches: that is no matter of one."""
    return None if job.each.bias is None and job.other is not None else bias_place(job)


def twin_groups(job: Job) -> int:
    """How many groups the twin has."""
    return job.twin.attributes.get_int("group", 1) if job.each.kind == "conv" else 1
