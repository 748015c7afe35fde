"""Zeroed initializers as ONNX sparse initializers, where that saves bytes.

A sparse initializer stores the values that are not zero and their positions as int64: v bytes and 8 per value, where
the dense form has v bytes per element. So it pays off when fewer than v / (v + 8) of the elements are not zero: one
third for float32, one fifth for float16. onnxruntime accepts them and makes them dense when it loads the model; they
save disk, not time. `onnx_ir` does not keep them, so this works on the saved file.

Left dense: external data, weights inside subgraphs and functions, and initializers that are also graph inputs.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from onnxprune.errors import OnnxPruneError

__all__ = ["write_sparse"]


def write_sparse(path: str | Path, names: Collection[str]) -> int:
    """Rewrites a model file with some initializers sparse; all or nothing.

    Args:
        path: A model file, replaced by a smaller one.
        names: The initializers to try.

    Returns:
        Bytes saved; 0 and the file untouched where nothing is.

    Raises:
        OnnxPruneError: The file cannot be written.
    """
    path = Path(path)
    model = onnx.load(path, load_external_data=False)
    before = path.stat().st_size
    graph, inputs = model.graph, {value.name for value in model.graph.input}
    for tensor in list(graph.initializer):
        if tensor.name not in names or tensor.name in inputs:
            continue
        sparse = _sparse(tensor)
        if sparse is not None and sparse.ByteSize() < tensor.ByteSize():
            graph.sparse_initializer.append(sparse)
            graph.initializer.remove(tensor)
    content = model.SerializeToString(deterministic=True)
    if len(content) >= before:
        return 0
    _replace(path, content)
    return before - len(content)


def _sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto | None:
    """The tensor with only what is not zero; None where it cannot be."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL or not tensor.dims:
        return None
    flat = numpy_helper.to_array(tensor).reshape(-1)
    places = np.flatnonzero(flat.view(f"u{flat.itemsize}"))  # a negative zero stays itself
    if not len(places) or 8 * len(places) >= flat.nbytes:
        return None
    values = numpy_helper.from_array(flat[places], tensor.name)
    if values.data_type != tensor.data_type:
        return None
    indices = numpy_helper.from_array(places.astype(np.int64), f"{tensor.name}_indices")
    return onnx.helper.make_sparse_tensor(values, indices, list(tensor.dims))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OnnxPruneError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
