"""The shape of every value of a model, and the integers among them that never change, read off a real run.

Shape inference stops at ops it does not know and believes stale annotations; onnxruntime cannot be wrong about what it
computed. So a `Shape` node is put behind every value and the model is run once. Bodies of If, Loop and Scan are run on
their own, on what they capture. Another run with other sizes for the open axes of the inputs tells the integers that
depend on them (several runs, where the model does not take other sizes on all of them at once).

Where the weights are large, stand-ins of the same shape that onnxruntime makes while it runs take their place: their
values do not matter here, and no gigabyte is read.
"""

from __future__ import annotations

from itertools import islice

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import weights
from onnxprune.graph.flow import bodies_by_node
from onnxprune.runtime.inputs import Shapes, random_feed, running_shapes, varied_shapes
from onnxprune.runtime.open_axes import doubled
from onnxprune.runtime.probe import Measured, Probe, is_small

__all__ = ["Measured", "measure"]

MOST_RUNS = 4
"""Shapes of the inputs on which the model runs, tried in search of one on which every body runs alone."""
MOST_TRIES = 16
"""Shapes of the inputs tried for a body that ran on none of those."""


def measure(model: ir.Model, shapes: Shapes | None = None) -> Measured:
    """Runs the model once (again where inputs have open axes) and reads off what it did.

    Args:
        model: A model without local functions. It is not changed.
        shapes: Shapes for some inputs, by name; the others are found by trying.

    Raises:
        ModelError: onnxruntime does not load the model, or runs it on no shapes that were tried.
    """
    probe = Probe(model.graph, model)
    measured = _first_run(probe, shapes)
    followed = bool(measured.values)
    for weight in weights(model):
        measured.shapes[weight.value] = weight.shape
        if (
            weight.kind != "constant_of_shape"
            and is_small(weight.shape)
            and weight.dtype.is_integer()
        ):
            array = weight.array()
            measured.values[weight.value] = array
            measured.fixed[weight.value] = np.ones(array.shape, bool)
    told = set[tuple[str, int]]()
    for k, other in enumerate(doubled(model, measured.inputs) if followed else ()):
        changed = {
            (name, axis)
            for name, shape in measured.inputs.items()
            for axis in np.flatnonzero(np.not_equal(shape, other[name])).tolist()
        }
        measured.untold |= changed
        try:
            second = Measured()
            probe.read(random_feed(probe.model, other, 0), second)
        except ModelError:
            continue
        told |= changed
        for value, first in measured.values.items():
            array = second.values.get(value, first)
            same = first == array if first.shape == array.shape else np.zeros(first.shape, bool)
            measured.fixed[value] = measured.fixed[value] & same
        if k == 0:
            break  # all that may change did
    measured.untold -= told
    return measured


def _first_run(probe: Probe, shapes: Shapes | None) -> Measured:
    """The run on the first shapes that work; bodies that failed on them are tried on others, captured inputs alone."""
    best: Measured | None = None
    measured = Measured()

    def attempt(feed: dict[str, np.ndarray]) -> None:
        nonlocal measured
        measured = Measured()
        probe.read(feed, measured)

    for found in islice(running_shapes(probe.model, shapes, attempt), MOST_RUNS):
        measured.inputs = found
        if best is None or measured.failed < best.failed:
            best = measured
        if not best.failed:
            return best
    assert best is not None
    inputs = {value.name: value for value in probe.graph.inputs}
    for node, body in bodies_by_node(probe.graph):
        known = _unseen(body, best)
        tries = (
            random_feed(probe.model, other, 0)
            for other in varied_shapes(probe.model, shapes or {}, best.inputs)
        )
        for feed in islice(tries, MOST_TRIES) if known else ():
            other = Measured()
            probe.read_body(
                node, body, {inputs[name]: array for name, array in feed.items()}, other
            )
            if _unseen(body, other) < known:
                known = _unseen(body, other)
                best.take(other)
            if not known:
                break
    return best


def _unseen(body: ir.Graph, measured: Measured) -> int:
    """How many values of a body and of those inside it were not measured."""
    graphs = (body, *body.subgraphs())
    return sum(
        v not in measured.shapes
        for graph in graphs
        for node in graph
        for v in node.outputs
        if v.name
    )
