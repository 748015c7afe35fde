"""The type and shape of every value, from real runs instead of inference.

Inference stops at ops of other domains and at shapes computed from data; onnxruntime does not. The
model is run with every intermediate made an output, and once more with its dynamic axes at other
sizes: an axis that came out the same both times is static, the others are dynamic (None). Where no
second size runs, the model's inputs are fixed at the first, so that onnxruntime refuses what the
backward nodes were not written for. The branches of an If are run both, on what they read from
outside; the values of a branch that does not run stay without shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.graph import clone
from onnxprune.graph.flow import bodies_by_node
from onnxprune.runtime import inputs as _inputs
from onnxprune.runtime.bodies import as_model
from onnxprune.runtime.sessions import run, session

__all__ = ["Feeds", "annotate", "forget_shapes"]

Feeds = dict[str, np.ndarray[Any, Any]]

_SMALL = 1024  # elements


def annotate(model: ir.Model, feeds: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Feeds:
    """Set type and shape of every value of the main graph, and the values of shape arithmetic.

    Args:
        model: Changed in place; its initializers are no graph inputs.
        feeds: Inputs to run with; random ones by default.

    Returns:
        The inputs it ran with.

    Raises:
        ModelError: The model does not run.
    """
    made, names = _session(model)
    if feeds is None:
        feeds = _inputs.random_inputs(model)
    results = _run(made, names, feeds)
    inputs = [value for value in model.graph.inputs if value.name in feeds]
    other = _second_run(made, names, inputs, feeds)
    runs = [{**feeds, **results}] + ([] if other is None else [{**other[0], **other[1]}])
    made_here = [value for node in model.graph for value in node.outputs]
    seen = [{v: run[v.name] for v in (*inputs, *made_here) if v.name in run} for run in runs]
    _set_all([*inputs, *made_here], seen)
    _branches(model, model.graph, seen)
    _settle(model.graph, results)
    return dict(feeds)


Seen = dict[ir.Value, np.ndarray[Any, Any]]


def _set_all(values: Sequence[ir.Value], seen: Sequence[Seen]) -> None:
    for value in values:
        if value in seen[0]:
            _set(value, seen[0][value], seen[-1].get(value) if len(seen) > 1 else None)


def _branches(model: ir.Model, graph: ir.Graph, seen: Sequence[Seen]) -> None:
    """Types and shapes inside the branches of the graph's If nodes, those within them included."""
    for node, body in bodies_by_node(graph):
        if node.op_type != "If":
            continue
        forget_shapes(value for inner in body for value in inner.outputs)
        inside = []
        for outer in seen:
            try:
                inside.append({**outer, **_body_run(model, body, outer)})
            except ModelError:
                break
        if inside:
            _set_all([value for inner in body for value in inner.outputs], inside)
            _branches(model, body, inside)
            _merge(node, body)


def forget_shapes(values: Iterable[ir.Value]) -> None:
    """Leave shapes to onnxruntime.

    What a file declares may be wrong, and what one run showed may be refused in a branch that is not
    taken there.
    """
    for value in values:
        value.shape = None


def _body_run(model: ir.Model, body: ir.Graph, outer: Seen) -> Seen:
    """Every value that a body makes, given those around it."""
    alone, feed = as_model(body, model, outer)
    made, names = _session(alone)
    results = _run(made, names, feed)
    return {
        value: results[copy.name]
        for inner, twin in zip(body, alone.graph, strict=True)
        for value, copy in zip(inner.outputs, twin.outputs, strict=True)
        if copy.name in results
    }


def _merge(node: ir.Node, body: ir.Graph) -> None:
    """An axis of an If's result is static where both branches agree."""
    for outer, inner in zip(node.outputs, body.outputs, strict=True):
        if outer.shape is None or inner.shape is None or len(outer.shape) != len(inner.shape):
            continue
        sizes = zip(outer.shape.dims, inner.shape.dims, strict=True)
        outer.shape = ir.Shape([a if a == b else ir.SymbolicDim(None) for a, b in sizes])


def _set(value: ir.Value, array: np.ndarray[Any, Any], again: np.ndarray[Any, Any] | None) -> None:
    # A new type: the old object may be shared with the model that this is a copy of.
    value.type = ir.TensorType(ir.DataType.from_numpy(array.dtype))
    sizes: list[int | ir.SymbolicDim] = list(array.shape)
    if again is not None and again.ndim == array.ndim:
        # Without a name: names found in the file may promise that sizes are equal which are not.
        sizes = [
            size if size == other else ir.SymbolicDim(None)
            for size, other in zip(array.shape, again.shape, strict=True)
        ]
    value.shape = ir.Shape(sizes)


def _settle(graph: ir.Graph, results: Feeds) -> None:
    """Note the small values that are the same whatever the inputs: shape arithmetic, mostly."""
    settled = set(graph.initializers.values())
    for node in graph:
        static = node.op_type == "Shape" and node.inputs[0] is not None and _static(node.inputs[0])
        if node.op_type.startswith("Random") or not (
            static or all(value is None or value in settled for value in node.inputs)
        ):
            continue
        settled.update(node.outputs)
        for value in node.outputs:
            array = results.get(value.name or "")
            if array is not None and array.size <= _SMALL:
                value.const_value = ir.tensor(array, name=value.name)


def _static(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(dim, int) for dim in value.shape.dims)


def _session(model: ir.Model) -> tuple[ort.InferenceSession, list[str]]:
    """A session with every value that a node makes among its outputs, and their names."""
    probe = clone(model)
    present = set(probe.graph.outputs)
    made = [value for node in probe.graph for value in node.outputs if value.name]
    probe.graph.outputs.extend(value for value in made if value not in present)
    forget_shapes(made)
    forget_shapes(value for node in probe.graph.all_nodes() for value in node.outputs)
    return session(probe, optimize=False), [value.name or "" for value in made]


def _run(made: ort.InferenceSession, names: Sequence[str], feeds: Mapping[str, Any]) -> Feeds:
    return {
        name: result
        for name, result in zip(names, run(made, feeds, names), strict=True)
        if isinstance(result, np.ndarray)
    }


def _second_run(
    made: ort.InferenceSession,
    names: Sequence[str],
    inputs: Sequence[ir.Value],
    feeds: Mapping[str, np.ndarray[Any, Any]],
) -> tuple[Feeds, Feeds] | None:
    """Inputs and results at other sizes: all dynamic axes changed, else the first axes alone."""
    for only_first in (False, True):
        other, changed = {}, False
        for value in inputs:
            array = feeds[value.name or ""]
            sizes = list(array.shape)
            for axis, dim in enumerate(value.shape.dims if value.shape is not None else ()):
                if not (isinstance(dim, int) and dim > 0) and (axis == 0 or not only_first):
                    sizes[axis] += 1 if axis == 0 else sizes[axis]
                    changed = True
            other[value.name or ""] = np.resize(array, sizes)
        if not changed:
            return None
        try:
            return other, _run(made, names, other)
        except ModelError:
            continue  # the model is not dynamic there, whatever it declares
    return None
