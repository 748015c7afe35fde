"""External data: tensors that live in files beside the model.

`onnx_ir` memory-maps such a file at the first read and keeps the mapping, so a walk over the
weights of a 4 GB model ends with 4 GB resident. `FileTensor` keeps nothing: each use reads just its
own bytes anew, large ones through a mapping of their own that ends with the array. Reading again is
cheap (the page cache has it); holding on is not.

A location is trusted only when it names a regular file inside the folder of the model, after all
symbolic links are resolved: otherwise a model from the internet could read any file of its user
into the pruned copy.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError

__all__ = ["FileTensor", "attach", "read"]

_CHUNK = 1 << 23  # bytes copied at a time
_MAPPED = 1 << 20  # bytes from which on a tensor is mapped, which saves a copy


class FileTensor(ir.ExternalTensor):
    """An external tensor that is read from its file at every use and never stays in memory."""

    __slots__ = ()

    def numpy(self) -> np.ndarray:
        """Reads the tensor: an array, perhaps read-only, that holds the bytes as long as it lives."""
        dtype = np.dtype(self.dtype.numpy())
        shape = tuple(self.shape.numpy())
        if self.dtype.bitwidth < 8:
            packed = ir.PackedTensor(
                np.frombuffer(self.tobytes(), np.uint8), self.dtype, shape=ir.Shape(shape)
            )
            return np.array(packed.numpy())
        if dtype.kind in "iufc":
            dtype = dtype.newbyteorder("<")
        if self.nbytes >= _MAPPED and (self.offset or 0) % dtype.itemsize == 0:
            return self._map(dtype).reshape(shape)
        array = np.empty(shape, dtype)
        with open(self.path, "rb") as file:
            file.seek(self.offset or 0)
            if file.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
                raise _too_short(self)
        return array

    def _map(self, dtype: np.dtype) -> np.ndarray:
        offset = self.offset or 0
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        with open(self.path, "rb") as file:
            if os.fstat(file.fileno()).st_size < offset + self.nbytes:
                raise _too_short(self)
            length = offset - start + self.nbytes
            mapped = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ, offset=start)
        return np.frombuffer(mapped, dtype, self.size, offset - start)

    def __array__(self, dtype: Any = None) -> np.ndarray:
        return self.numpy().__array__(dtype)

    def tobytes(self) -> bytes:
        """Reads the tensor as ONNX's raw bytes (little endian, sub-byte types packed)."""
        with open(self.path, "rb") as file:
            file.seek(self.offset or 0)
            data = file.read(self.nbytes)
        if len(data) != self.nbytes:
            raise _too_short(self)
        return data

    def tofile(self, file: BinaryIO) -> None:
        """Copies the tensor's bytes to the position of `file`, a chunk at a time."""
        left = self.nbytes
        with open(self.path, "rb") as source:
            source.seek(self.offset or 0)
            while left:
                chunk = source.read(min(left, _CHUNK))
                if not chunk:
                    raise _too_short(self)
                file.write(chunk)
                left -= len(chunk)


def read(tensor: ir.TensorProtocol) -> np.ndarray:
    """The tensor as an array, without leaving a memory mapping behind; it may be read-only."""
    if isinstance(tensor, ir.ExternalTensor) and not isinstance(tensor, FileTensor):
        tensor = _file_tensor(tensor)
    return np.asarray(tensor.numpy())


def attach(model: ir.Model, folder: Path) -> tuple[Path, ...]:
    """Checks every external tensor of the model and makes it a `FileTensor`.

    Args:
        model: The model as deserialised; changed in place.
        folder: The folder that holds the model's file, and must hold its data.

    Returns:
        The files that hold the tensors.

    Raises:
        ModelError: A file is missing, too short, or not inside the folder.
    """
    sizes: dict[str, int] = {}  # bytes of every data file that was looked at
    for holder, key, tensor in _external_tensors(model):
        tensor.base_dir = folder
        attached = _file_tensor(tensor)
        location = os.fspath(attached.location)
        if location not in sizes:
            sizes[location] = _size(attached, folder)
        _check_extent(attached, sizes[location])
        if isinstance(holder, ir.Value):
            holder.const_value = attached
        else:
            holder.attributes[key] = ir.AttrTensor(key, attached)
    return tuple(folder / location for location in sizes)


def _external_tensors(
    model: ir.Model,
) -> Iterator[tuple[ir.Value | ir.Node, str, ir.ExternalTensor]]:
    """What holds each external tensor: an initializer's value, or a node and its attribute."""
    graphs = [*model.graphs(), *(function.graph for function in model.functions.values())]
    for graph in graphs:
        for name, value in graph.initializers.items():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value, name, value.const_value
        for node in graph:
            for name, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and isinstance(
                    attribute.value, ir.ExternalTensor
                ):
                    yield node, name, attribute.value


def _file_tensor(tensor: ir.ExternalTensor) -> FileTensor:
    return FileTensor(
        tensor.location,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
        base_dir=tensor.base_dir,
    )


def _size(tensor: FileTensor, folder: Path) -> int:
    """Bytes of the file that holds the tensor, once it is known to lie inside the folder."""
    where = f"external data of tensor {tensor.name!r}"
    location = os.fspath(tensor.location)
    if not location:
        raise ModelError(f"{where} names no file; export the model again")
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts:
        raise ModelError(
            f"{where} is at {location!r}, outside the model's folder; only files inside it are read"
        )
    resolved = Path(tensor.path).resolve()
    if not resolved.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{where} is at {location!r}, a link that leads outside the model's folder; "
            "put the file itself there"
        )
    if not resolved.exists():
        raise ModelError(
            f"{where} is missing: no file {location!r} beside the model; "
            "copy the data files together with the model"
        )
    if not resolved.is_file():
        raise ModelError(f"{where} is at {location!r}, which is not a regular file")
    if not os.access(resolved, os.R_OK):
        raise ModelError(f"{where} is at {location!r}, which may not be read (permission denied)")
    return resolved.stat().st_size


def _check_extent(tensor: FileTensor, available: int) -> None:
    where = f"external data of tensor {tensor.name!r}"
    offset = tensor.offset or 0
    needed = math.ceil(tensor.size * tensor.dtype.bitwidth / 8)
    if tensor.dtype == ir.DataType.STRING:
        raise ModelError(f"{where} holds strings, which ONNX does not allow in external files")
    if tensor.length is not None and tensor.length != needed:
        raise ModelError(
            f"{where} declares {tensor.length} bytes, but its shape and type need {needed}"
        )
    if offset < 0 or offset + needed > available:
        raise ModelError(
            f"{where} needs bytes {offset} to {offset + needed} of {os.fspath(tensor.location)!r}, "
            f"which has only {available}; the file is cut short or belongs to another model"
        )


def _too_short(tensor: FileTensor) -> ModelError:
    return ModelError(
        f"external data of tensor {tensor.name!r}: {tensor.path} became shorter while it was read"
    )
