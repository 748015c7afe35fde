"""The type and shape of every value, from real runs instead of inference.

Inference stops at ops of other domains and at shapes computed from data; onnxruntime does not. The
model is run with every intermediate made an output, and once more with its dynamic axes at other
sizes: an axis that came out the same both times is static, the others are dynamic (None). Where no
second size runs, the model's inputs are fixed at the first, so that onnxruntime refuses what the
backward nodes were not written for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import ModelError

__all__ = ["Feeds", "annotate"]

Feeds = dict[str, np.ndarray[Any, Any]]

_SMALL = 1024  # elements
_BATCHES = (2, 1)
_SIZES = (64, 16, 224, 8, 128, 32, 256, 3, 1)


def annotate(model: ir.Model, feeds: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Feeds:
    """Set type and shape of every value of the main graph.

    Args:
        model: Changed in place; its initializers are no graph inputs.
        feeds: Inputs to run with; random ones by default.

    Returns:
        The inputs it ran with.

    Raises:
        ModelError: The model does not run.
    """
    session, names = _session(model)
    if feeds is None:
        feeds, results = _first_run(session, names, model)
    else:
        results = _run(session, names, feeds)
    inputs = [value for value in model.graph.inputs if value.name in feeds]
    other = _second_run(session, names, inputs, feeds)
    values = {value.name: value for node in model.graph for value in node.outputs}
    for name, result in results.items():
        again = None if other is None else other[1].get(name)
        _set(values[name], result, again)
    for value in inputs:
        assert value.name is not None
        again = None if other is None else other[0][value.name]
        _set(value, feeds[value.name], again)
    _settle(model.graph, results)
    return dict(feeds)


def _set(value: ir.Value, array: np.ndarray[Any, Any], again: np.ndarray[Any, Any] | None) -> None:
    value.type = ir.TensorType(
        ir.DataType.from_numpy(array.dtype)
    )  # the old object is shared with the original
    sizes: list[int | ir.SymbolicDim] = list(array.shape)
    if again is not None and again.ndim == array.ndim:
        declared = value.shape.dims if value.shape is not None else ()
        for axis, size in enumerate(again.shape):
            if size != array.shape[axis]:
                known = declared[axis] if len(declared) == array.ndim else None
                sizes[axis] = known if isinstance(known, ir.SymbolicDim) else ir.SymbolicDim(None)
    value.shape = ir.Shape(sizes)


def _settle(graph: ir.Graph, results: Feeds) -> None:
    """Tell the small values that come out the same whatever the inputs: shape arithmetic, mostly."""
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
    probe = model.clone()
    present = set(probe.graph.outputs)
    made = [value for node in probe.graph for value in node.outputs if value.name]
    probe.graph.outputs.extend(value for value in made if value not in present)
    for value in made:
        value.shape = None  # what is declared may be wrong
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 2
    try:
        session = ort.InferenceSession(
            ir.to_proto(probe).SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ModelError(f"onnxruntime cannot load the model: {_line(error)}") from error
    return session, [value.name or "" for value in made]


def _run(session: ort.InferenceSession, names: list[str], feeds: Mapping[str, Any]) -> Feeds:
    try:
        results = session.run(names, dict(feeds))
    except Exception as error:
        raise ModelError(f"onnxruntime cannot run the model: {_line(error)}") from error
    return {
        name: result
        for name, result in zip(names, results, strict=True)
        if isinstance(result, np.ndarray)
    }


def _first_run(
    session: ort.InferenceSession, names: list[str], model: ir.Model
) -> tuple[Feeds, Feeds]:
    error: ModelError | None = None
    for candidate in _candidates(model.graph.inputs):
        try:
            return candidate, _run(session, names, candidate)
        except ModelError as caught:
            error = caught
    assert error is not None
    raise error


def _second_run(
    session: ort.InferenceSession,
    names: list[str],
    inputs: list[ir.Value],
    feeds: Mapping[str, np.ndarray[Any, Any]],
) -> tuple[Feeds, Feeds] | None:
    """Inputs and results at other sizes: all dynamic axes changed, else the first axes alone."""
    for only_first in (False, True):
        sizes = {v.name: list(feeds[v.name or ""].shape) for v in inputs}
        changed = False
        for value in inputs:
            dims = value.shape.dims if value.shape is not None else ()
            for axis, dim in enumerate(dims):
                if not isinstance(dim, int) and (axis == 0 or not only_first):
                    sizes[value.name][axis] += 1 if axis == 0 else sizes[value.name][axis]
                    changed = True
        if not changed:
            return None
        other = {
            v.name or "": np.resize(feeds[v.name or ""], sizes[v.name]).astype(
                feeds[v.name or ""].dtype
            )
            for v in inputs
        }
        try:
            return other, _run(session, names, other)
        except ModelError:
            continue  # the model is not dynamic there, whatever it declares
    return None


def _candidates(inputs: Sequence[ir.Value]) -> Iterator[Feeds]:
    dynamic = any(
        not isinstance(dim, int) for value in inputs if value.shape for dim in value.shape.dims
    )
    for size in _SIZES if dynamic else _SIZES[:1]:
        for batch in _BATCHES if dynamic else _BATCHES[:1]:
            for whole in (0, 1):
                yield {value.name or "": _random(value, batch, size, whole) for value in inputs}


def _random(value: ir.Value, batch: int, size: int, whole: int) -> np.ndarray[Any, Any]:
    dims = value.shape.dims if value.shape is not None else ()
    shape = [
        dim if isinstance(dim, int) else batch if axis == 0 else size
        for axis, dim in enumerate(dims)
    ]
    assert value.dtype is not None
    dtype = value.dtype.numpy()
    if np.issubdtype(dtype, np.floating):
        return np.random.default_rng(0).normal(size=shape).astype(dtype)
    return np.full(shape, whole, dtype)


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
