"""Saving a model: all or nothing, in one pass over the weights.

Everything is first written to new files beside the target, then renamed into place; whatever stops
the run before (a full disk, Ctrl-C, an error in a lazy weight) leaves the target as it was and no
debris. A model with external data is two files, and two renames cannot be one step: the old OUT is
taken away before its data file is replaced, so even a power cut between the renames leaves no OUT
at all, but never one that reads the data of another model.

Weights are evaluated one at a time while they are written, so the memory needed is that of the
largest one.
"""

from __future__ import annotations

import os
import secrets
import signal
import stat
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import escape
from pathlib import Path
from types import FrameType
from typing import BinaryIO

import onnx_ir as ir

from onnxprune.errors import OnnxPruneError
from onnxprune.graph.load import DATA_FILES, SOURCE
from onnxprune.graph.serialize import LARGEST_PROTO, in_memory, initializers, serialize

if sys.platform != "win32":
    import fcntl

__all__ = ["check_target", "data_file", "same_file", "save"]

_INLINE = 1024  # bytes; smaller tensors stay in the .onnx file
_ALIGNED = 1 << 20  # bytes; tensors at least this large start on a page of the data file
_PAGE = 4096


def same_file(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> bool:
    """Whether two paths lead to one file, through any links, or would if it existed."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return Path(a).resolve() == Path(b).resolve()


def data_file(path: str | os.PathLike[str]) -> Path:
    """Where `save` puts the external data of the model at `path`: beside it, `<name>.data`."""
    path = Path(path)
    return path.with_name(path.name + ".data")


def file_bytes(path: str | os.PathLike[str]) -> int:
    """Bytes of a model file and of the data file that belongs to it."""
    return sum(each.stat().st_size for each in (Path(path), data_file(path)) if each.exists())


def save(model: ir.Model, path: str | os.PathLike[str], *, external: bool | None = None) -> None:
    """Writes the model; `path` is either replaced whole or left untouched.

    Weights go to `data_file(path)` where the source had external data or they exceed 2 GB, else
    into the file itself. Names, IR version and opsets are the model's; the same model gives the
    same bytes.

    Args:
        model: The model; unchanged. Its lazy tensors are evaluated one at a time, once.
        path: The file to write. External tensors of `model` that lie in `data_file(path)` are
            invalid afterwards.
        external: Whether weights go to a file of their own; None decides as said above.

    Raises:
        OnnxPruneError: The target cannot be written, the disk is full, or the file that the model
            was loaded from would lose its external data.
        ModelError: The model cannot be serialised.
    """
    path = Path(path)
    if external is None:
        external = _wants_external(model)
    targets = [path, data_file(path)] if external else [path]
    for target in targets:
        check_target(target)
    if SOURCE in model.meta and not same_file(path, model.meta[SOURCE]):
        check_spared(model, targets)
    with ExitStack() as stack:
        try:
            data = None
            if external:
                data = stack.enter_context(_temporary(data_file(path)))
                stack.enter_context(_moved_out(model, data, data_file(path).name))
            content = serialize(model)
            file = stack.enter_context(_temporary(path))
            file.write_bytes(content)
            with _uninterrupted():
                if data is not None:
                    path.unlink(missing_ok=True)
                    os.replace(data, data_file(path))
                os.replace(file, path)
        except OSError as error:
            raise OnnxPruneError(
                f"cannot write {path}: {error.strerror or error}; nothing was written"
            ) from error


def check_target(path: Path) -> None:
    """Whether a file can be written there, as far as that shows without writing.

    Raises:
        OnnxPruneError: It cannot, with the reason.
    """
    if path.is_dir():
        raise OnnxPruneError(f"cannot write {path}: it is a directory; name a file")
    if not path.parent.is_dir():
        raise OnnxPruneError(f"cannot write {path}: the folder {path.parent} does not exist")
    if path.exists() and not path.is_file():
        raise OnnxPruneError(f"cannot write {path}: it is not a regular file")
    if path.exists() and not os.access(path, os.W_OK):
        raise OnnxPruneError(f"cannot write {path}: the file is write-protected")


def check_spared(model: ir.Model, targets: Iterable[Path | None]) -> None:
    """None of the files that a model was read from, and is still read from, may be written.

    Raises:
        OnnxPruneError: One of the targets is one of them.
    """
    source = model.meta.get(SOURCE)
    files = [*([source] if source is not None else []), *model.meta.get(DATA_FILES, ())]
    for target in targets:
        for file in files:
            if target is not None and same_file(target, file):
                raise OnnxPruneError(
                    f"writing {target} would overwrite {file}, which the input needs; "
                    "choose another name"
                )


@contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A new file beside the target, with its permissions; gone at the end unless renamed.

    It is locked as long as it is used: one that nobody holds was left by a process that was killed, and goes.
    """
    stem = f".{target.name[:100]}."
    for old in target.parent.glob(f"{escape(stem)}{'[0-9a-f]' * 8}.tmp"):
        _remove_if_left(old)
    path = target.with_name(f"{stem}{secrets.token_hex(4)}.tmp")
    try:
        with open(path, "xb") as holder:
            if not _locked(holder):
                holder.close()  # Windows renames no file that is open
            if target.exists():
                path.chmod(stat.S_IMODE(target.stat().st_mode))
            yield path
    finally:
        path.unlink(missing_ok=True)


def _locked(file: BinaryIO) -> bool:
    """Whether nobody else holds the file, which is then ours until it is closed; never where there are no locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove_if_left(path: Path) -> None:
    with suppress(OSError), open(path, "rb") as file:
        if _locked(file):
            path.unlink()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back for the moment in which files change places."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[tuple[int, FrameType | None]] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: held.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held and callable(previous):
            previous(*held[0])


def _wants_external(model: ir.Model) -> bool:
    tensors = [value.const_value for value in initializers(model)]
    return (
        bool(model.meta.get(DATA_FILES))
        or any(isinstance(tensor, ir.ExternalTensor) for tensor in tensors)
        or sum(tensor.nbytes for tensor in tensors if tensor is not None) > LARGEST_PROTO
    )


@contextmanager
def _moved_out(model: ir.Model, data: Path, location: str) -> Iterator[None]:
    """Streams the large initializers into `data`; within the context they refer to `location`."""
    before: list[tuple[ir.Value, ir.TensorProtocol]] = []
    try:
        with open(data, "wb") as file:
            for value in initializers(model):
                tensor = value.const_value
                assert tensor is not None, "initializers() has only values with contents"
                before.append((value, tensor))
                if tensor.dtype != ir.DataType.STRING and tensor.nbytes >= _INLINE:
                    value.const_value = _written(tensor, value.name or "", file, location)
                elif isinstance(tensor, ir.ExternalTensor):
                    value.const_value = in_memory(tensor)
        yield
    finally:
        for value, tensor in before:
            value.const_value = tensor


def _written(
    tensor: ir.TensorProtocol, name: str, file: BinaryIO, location: str
) -> ir.ExternalTensor:
    """Appends the tensor to the data file and returns the reference to it."""
    if tensor.nbytes >= _ALIGNED:
        file.write(bytes(-file.tell() % _PAGE))
    offset = file.tell()
    if hasattr(tensor, "tofile"):  # not part of the protocol, but all of onnx_ir's own have it
        tensor.tofile(file)
    else:
        file.write(tensor.tobytes())
    return ir.ExternalTensor(
        location,
        offset,
        file.tell() - offset,
        tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
