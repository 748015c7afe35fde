"""onnxruntime sessions: the one place where the program makes them.

A session is made from a file, or from a model in memory without writing it out: external weights
that are unchanged stay references into the files of the source, and only what is too large for one
protobuf message goes through a temporary folder.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as _binding

from onnxprune.errors import ModelError, ProviderError
from onnxprune.graph.save import save
from onnxprune.graph.serialize import LARGEST_PROTO, initializers, serialize
from onnxprune.runtime import providers as _providers

__all__ = ["ORT_ERRORS", "cores", "one_line", "run", "session"]

_SILENT = 4  # onnxruntime's severity "fatal": its errors reach the user as ours
ort.set_default_logger_severity(_SILENT)
_SPIN_US = "100"

# onnxruntime's exceptions have no base of their own; its Python layer adds the usual two.
ORT_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        kind
        for kind in vars(_binding).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)


_CPP_FUNCTION = re.compile(
    r"(?:virtual )?(?:[\w:&*]+ )?\w+(?:::~?\w+)+\([^()]*(?:\([^()]*\)[^()]*)*\)(?: const)?:? "
)


def session(
    model: ir.Model | str | os.PathLike[str],
    providers: Sequence[str] = ("cpu",),
    *,
    optimize: bool = True,
    threads: int | None = None,
    profile: Path | None = None,
    frugal: bool = False,
) -> ort.InferenceSession:
    """An onnxruntime session of a file or of a model in memory.

    Args:
        model: Path of an ONNX file, or a model; its lazy tensors are evaluated.
        providers: Names such as `cpu` or `cuda`, in order of preference; the CPU is always last.
        optimize: Whether onnxruntime may rewrite the graph (all levels) or runs it as it stands.
        threads: Threads within an operator; None leaves the choice to onnxruntime.
        profile: Where onnxruntime's profiler writes, less a date and `.json`; None: it stays off.
        frugal: Take memory from one arena that all such sessions share and that grows by no more than is
            asked for; it stays until the process ends. By default onnxruntime doubles an arena of the
            session's own and lays values out in advance, which for graphs of forward and backward pass
            takes up to twice as much. Threads without work soon sleep.

    Raises:
        ModelError: onnxruntime refuses the model; the message has its reason on one line.
        ProviderError: A provider is not available, or does not start.
    """
    chosen = _providers.resolve(providers)
    options = _options(optimize, threads, frugal)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if not isinstance(model, ir.Model):
        return _start(os.fspath(model), options, chosen, os.fspath(model))
    name = str(model.meta.get("source", "the model"))
    folders = {
        os.path.abspath(value.const_value.base_dir)
        for value in initializers(model)
        if isinstance(value.const_value, ir.ExternalTensor)
    }
    if len(folders) > 1 or _bytes_in_message(model) > LARGEST_PROTO:
        return _through_disk(model, options, chosen, name)
    for folder in folders:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", folder
        )
    return _start(serialize(model), options, chosen, name)


def run(
    session: ort.InferenceSession,
    feed: Mapping[str, np.ndarray],
    outputs: Sequence[str] | None = None,
) -> list[Any]:
    """Runs a session once.

    Args:
        session: The session.
        feed: Input name to array.
        outputs: Names of the outputs wanted; None for all.

    Returns:
        The outputs in order: arrays, or lists where the model says sequence.

    Raises:
        ModelError: onnxruntime fails; the message has its reason on one line.
    """
    try:
        return list(session.run(None if outputs is None else list(outputs), dict(feed)))
    except ORT_ERRORS as error:
        raise ModelError(f"onnxruntime cannot run the model: {one_line(error)}") from error


def one_line(error: BaseException) -> str:
    """The message of onnxruntime without error codes, line breaks, and where in its C++ sources it comes from."""
    text = " ".join(str(error).split())
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"\S+\.(cc|h):\d+ ", "", text)
    text = _CPP_FUNCTION.sub("", text)
    text = re.sub(r"Load model from .*? failed: ?", "", text)
    return text[:300].strip() or type(error).__name__


def cores() -> int:
    """The processor cores that this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every platform
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def _options(optimize: bool, threads: int | None, frugal: bool) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.use_deterministic_compute = True
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if not optimize:
        # In file order: by default nodes without inputs all run first, and what they make fills the memory.
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if threads is None and 0 < cores() < (os.cpu_count() or 1):
        threads = (
            cores()
        )  # by itself onnxruntime makes one for each core of the machine, which then wait in line
    if threads is not None:
        options.intra_op_num_threads = threads
    if frugal:
        _register_arena()
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.use_env_allocators", "1")
        # The way back reads weights as they are: packed ones would be a second copy.
        options.add_session_config_entry("session.disable_prepacking", "1")
        # Threads that spin for long between nodes so many and small take the time of those that work.
        options.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    # Threads that spin after a run would slow down whatever comes next, such as another session.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


@cache
def _register_arena() -> None:
    """Onnxruntime takes one allocator a device and process."""
    same_as_requested = 1
    settings = ort.OrtArenaCfg(0, same_as_requested, -1, -1)
    place = ort.OrtMemoryInfo(
        "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
    )
    ort.create_and_register_allocator(place, settings)


def _start(
    source: str | bytes,
    options: ort.SessionOptions,
    chosen: list[tuple[str, dict[str, str]]],
    name: str,
) -> ort.InferenceSession:
    names = [provider for provider, _ in chosen]
    settings = [setting for _, setting in chosen]
    try:
        made = ort.InferenceSession(
            source, options, providers=names, provider_options=settings, enable_fallback=0
        )
    except ORT_ERRORS as error:
        raise ModelError(f"onnxruntime does not load {name}: {one_line(error)}") from error
    missing = [provider for provider in names if provider not in made.get_providers()]
    if missing:
        raise ProviderError(
            f"onnxruntime could not start {missing[0]}: no such device, or its libraries are not "
            f"installed; available without it: {', '.join(_providers.available())}"
        )
    return made


def _bytes_in_message(model: ir.Model) -> int:
    """Bytes of the initializers that would be part of the protobuf message."""
    tensors = [value.const_value for value in initializers(model)]
    return sum(
        tensor.nbytes
        for tensor in tensors
        if tensor is not None and not isinstance(tensor, ir.ExternalTensor)
    )


def _through_disk(
    model: ir.Model,
    options: ort.SessionOptions,
    chosen: list[tuple[str, dict[str, str]]],
    name: str,
) -> ort.InferenceSession:
    """By way of a temporary folder; onnxruntime keeps what it has mapped once it is gone."""
    with tempfile.TemporaryDirectory(prefix="onnxprune-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        save(model, path, external=True)
        return _start(str(path), options, chosen, name)
