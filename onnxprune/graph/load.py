"""Loading a model: lazily, and refusing with one clear line what is no usable ONNX file.

`onnx_ir` silently drops what it has no place for. Here nothing is lost in silence:

1. sparse initializers, and Constant nodes with a sparse value, become dense ones (the runtime does
   the same);
2. `training_info` refers to weights by name and shape, which pruning makes untrue: such a model is
   refused;
3. map types, the outputs of classical classifiers, are set aside in `model.meta` and written back
   by `save`.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import numpy_helper

from onnxprune.errors import ModelError
from onnxprune.graph import external

__all__ = ["DATA_FILES", "MAP_TYPES", "SOURCE", "load"]

SOURCE = "source"  # model.meta: Path of the file that was loaded
DATA_FILES = "data_files"  # model.meta: the files in which that one keeps its external data
MAP_TYPES = (
    "map_types"  # model.meta: name of an input or output -> its TypeProto, where that has a map
)

logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)  # what it warns of is refused below

_MAX_PROTO = 2**31 - 1  # bytes; protobuf's own limit


def load(path: str | os.PathLike[str]) -> ir.Model:
    """Reads an ONNX file. External data stay on disk until a weight is asked for.

    Args:
        path: The `.onnx` file.

    Returns:
        The model with all names, versions, functions and metadata as in the file; `model.meta` says
        where it came from (`SOURCE`) and which files hold its external data (`DATA_FILES`).

    Raises:
        ModelError: There is no such file, it is not ONNX, it is cut short, its external data are
            missing, too short or outside its folder, or it has something that pruning would make
            untrue.
    """
    path = Path(path)
    proto = _parse(path)
    if proto.training_info:
        raise ModelError(
            f"{path} carries training_info, which pruning would make untrue; "
            "remove it first (model.ClearField('training_info'))"
        )
    for graph in _graphs(proto):
        _densify(graph, path)
    map_types = _set_map_types_aside(proto)
    try:
        model = ir.serde.deserialize_model(proto)
    except (ir.serde.SerdeError, ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ModelError(f"{path} is not a valid ONNX model: {_root_cause(error)}") from error
    bodies: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    for body in bodies:
        _in_order(body, path)
        _name_default_domain(body)
    model.meta[SOURCE] = path
    model.meta[DATA_FILES] = external.attach(model, path.parent)
    model.meta[MAP_TYPES] = map_types
    return model


def _name_default_domain(body: ir.Graph | ir.Function) -> None:
    """The default domain, which `ai.onnx` is another name of, is the empty one, as it is of nodes already."""
    version = body.opset_imports.pop("ai.onnx", None)
    if version is not None:
        body.opset_imports.setdefault("", version)


def _parse(path: Path) -> onnx.ModelProto:
    data = _bytes(path)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError as error:
        if data.startswith(b"version https://git-lfs"):
            raise ModelError(
                f"{path} is a Git LFS pointer, not the model itself; run `git lfs pull`"
            ) from error
        raise ModelError(
            f"{path} is not an ONNX model: it is cut short or some other kind of file"
        ) from error
    if not proto.ir_version or not proto.HasField("graph"):
        raise ModelError(f"{path} is not an ONNX model: it has no graph or no IR version")
    if not proto.opset_import and not proto.functions and proto.ir_version >= 3:
        raise ModelError(
            f"{path} is not a whole ONNX model: it imports no operator set; "
            "the file is cut short, or older than onnxruntime can run"
        )
    return proto


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise ModelError(f"{path} is a directory; name the .onnx file in it")
    try:
        size = path.stat().st_size
        if size > _MAX_PROTO:
            raise ModelError(
                f"{path} has {size} bytes; a protobuf file over 2 GB cannot be read, "
                "its weights must be external data"
            )
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} does not exist") from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    if not data:
        raise ModelError(f"{path} is empty")
    return data


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """The main graph, the functions, and every subgraph inside them."""
    pending: list[onnx.GraphProto | onnx.FunctionProto] = [proto.graph, *proto.functions]
    while pending:
        body = pending.pop()
        yield body
        for node in body.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _densify(body: onnx.GraphProto | onnx.FunctionProto, path: Path) -> None:
    """Makes sparse initializers and sparse Constant values dense, in place."""
    if isinstance(body, onnx.GraphProto) and body.sparse_initializer:
        for sparse in body.sparse_initializer:
            body.initializer.append(_dense(sparse, path))
        del body.sparse_initializer[:]
    for node in body.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
                dense = _dense(attribute.sparse_tensor, path)
                attribute.CopyFrom(onnx.helper.make_attribute("value", dense))


def _dense(sparse: onnx.SparseTensorProto, path: Path) -> onnx.TensorProto:
    """The dense tensor of a COO one, whose indices are flat (n) or one row a value (n, rank)."""
    name = sparse.values.name
    try:
        folder = str(path.parent)
        values = numpy_helper.to_array(sparse.values, folder)
        indices = numpy_helper.to_array(sparse.indices, folder).astype(np.int64)
        shape = tuple(sparse.dims)
        flat = np.ravel_multi_index(tuple(indices.T), shape) if indices.ndim == 2 else indices
        dense = np.zeros(math.prod(shape), values.dtype)
        dense[flat] = values
    except (ValueError, IndexError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"{path}: sparse initializer {name!r} is invalid: {error}") from error
    return numpy_helper.from_array(dense.reshape(shape), name)


def _set_map_types_aside(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """Clears the types that contain a map and returns those of inputs and outputs."""
    aside: dict[str, onnx.TypeProto] = {}
    for body in _graphs(proto):
        interface = [] if isinstance(body, onnx.FunctionProto) else [*body.input, *body.output]
        for info in [*interface, *body.value_info]:
            if _has_map(info.type):
                kept = onnx.TypeProto()
                kept.CopyFrom(info.type)
                aside[info.name] = kept
                info.ClearField("type")
    return aside


def _has_map(kind: onnx.TypeProto) -> bool:
    match kind.WhichOneof("value"):
        case "map_type":
            return True
        case "sequence_type":
            return _has_map(kind.sequence_type.elem_type)
        case "optional_type":
            return _has_map(kind.optional_type.elem_type)
    return False


def _in_order(body: ir.Graph | ir.Function, path: Path) -> None:
    """Sorts the nodes, as onnxruntime does, and refuses those that read what nothing makes, or each other."""
    for node in body.all_nodes():
        for value in node.inputs:
            if value is not None and value.graph is None:
                raise ModelError(
                    f"{path} is not a valid ONNX model: {node.op_type} {node.name!r} reads "
                    f"{value.name!r}, which nothing in it makes"
                )
    try:
        body.sort()
    except ValueError as error:
        raise ModelError(
            f"{path} is not a valid ONNX model: some of its nodes read each other in a circle"
        ) from error


def _root_cause(error: BaseException) -> str:
    """The innermost message of a chain of exceptions, on one line."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
