"""How long layers take on this machine: a table that fills as it is asked, kept on disk.

A layer is timed alone (see `onnxprune.runtime.layer`) by onnxruntime's profiler, once. What was measured is kept in the
user's cache folder, one file for each machine, onnxruntime and provider, so that the next run finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.runtime.kernels import kernels
from onnxprune.runtime.layer import Layer
from onnxprune.runtime.providers import resolve
from onnxprune.runtime.sessions import cores

__all__ = ["LayerTimes", "cache_file", "layer_times"]

FORMAT = 1
"""Of the file; goes up when what is measured changes."""
SECONDS = 0.005
"""Spent on a layer, at most, if it takes less than a tenth of that."""
REORDERS = ("ReorderInput", "ReorderOutput")
"""What onnxruntime puts around a lone convolution, and between layers only where they need it."""


class LayerTimes:
    """Seconds of layers.

    Args:
        providers: onnxruntime providers by name.
        known: Seconds by name of the layer.
    """

    def __init__(self, providers: Sequence[str], known: dict[str, float] | None = None) -> None:
        self.providers = tuple(providers)
        self.known = known or {}
        self.measured = 0

    def __call__(self, layer: Layer) -> float | None:
        """Seconds of one run of the layer; None if onnxruntime does not run it alone."""
        key = repr(layer)
        if key not in self.known:
            self.known[key] = self._measure(layer)
            self.measured += 1
        return self.known[key] if self.known[key] > 0 else None

    def _measure(self, layer: Layer) -> float:
        """Seconds; 0 where it does not run."""
        try:
            model, feed = layer.model()
            found = kernels(model, feed, self.providers, seconds=SECONDS, least=8, most=100)
        except (ModelError, TypeError, ValueError):  # what it is depends on more than its shapes
            return 0.0
        return sum(kernel.seconds for kernel in found if kernel.op not in REORDERS)


@contextmanager
def layer_times(providers: Sequence[str]) -> Iterator[LayerTimes]:
    """The table of this machine, read from disk and written back if it grew.

    A file that cannot be read is measured anew, and one that cannot be written is not kept: a cache is no reason to
    fail.
    """
    path = cache_file(providers)
    table = LayerTimes(providers, _read(path))
    try:
        yield table
    finally:
        if table.measured:
            with suppress(OSError):
                _write(path, {**_read(path), **table.known})


def cache_file(providers: Sequence[str]) -> Path:
    """Where the table is kept: its name stands for all that times depend on but the layer itself."""
    key = (
        FORMAT,
        ort.__version__,
        resolve(providers),
        cores(),
        platform.platform(),
        _processor(),
    )
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    return _folder() / "latency" / f"{name}.json"


def _folder() -> Path:
    """The user's cache folder, as the platform has it."""
    home = Path.home()
    if platform.system() == "Windows":
        base = os.environ.get("LOCALAPPDATA") or str(home / "AppData" / "Local")
    elif platform.system() == "Darwin":
        base = str(home / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(home / ".cache")
    return Path(base) / "onnxprune"


def _processor() -> str:
    """The model of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: float(v) for k, v in found.items() if isinstance(v, (int, float)) and v >= 0}


def _write(path: Path, known: dict[str, float]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        json.dump(known, file)
    os.replace(name, path)
