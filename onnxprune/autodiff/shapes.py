"""The type and shape of every value, from real runs instead of inference.

Inference stops at ops of other domains and at shapes computed from data; onnxruntime does not. The
model is run with every intermediate made an output, and once more with its dynamic axes at other
sizes: an axis that came out the same both times is static, the others are dynamic (None). Where no
second size runs, the model's inputs are fixed at the first, so that onnxruntime refuses what the
backward nodes were not written for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.graph import clone
from onnxprune.runtime import inputs as _inputs
from onnxprune.runtime.sessions import run, session

__all__ = ["Feeds", "annotate"]

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
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name, result in results.items():
        _set(values[name], result, None if other is None else other[1].get(name))
    for value in inputs:
        name = value.name or ""
        _set(value, feeds[name], None if other is None else other[0][name])
    _settle(model.graph, results)
    return dict(feeds)


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
    for value in made:
        value.shape = None  # what is declared may be wrong
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
