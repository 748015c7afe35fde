"""Arrays that are needed again later: in memory up to a budget, beyond it in temporary files.

Second moments of wide layers, their inverses and what the original gave at every layer are more than a machine may hold
at once, but are looked at one layer at a time. So whoever gathers them puts them on a shelf, and takes each down when
its turn comes. Numbers come back as they went, wherever they waited meanwhile.
"""

from __future__ import annotations

import math
import tempfile
from typing import IO, Protocol

import numpy as np

from onnxprune.errors import OnnxPruneError

__all__ = ["Kept", "Shelf"]


class Kept(Protocol):
    """An array on a shelf."""

    def read(self) -> np.ndarray:
        """The array; not to be written to."""
        ...


class Shelf:
    """A place for arrays.

    Args:
        budget: Bytes of arrays that stay in memory; those that come when it is used up go to temporary files.
    """

    def __init__(self, budget: int) -> None:
        self._budget, self._held = budget, 0

    def keep(self, array: np.ndarray) -> Kept:
        """Keeps an array, which must not be written to any more, as long as somebody holds what comes back.

        Raises:
            OnnxPruneError: There is no room on the disk either.
        """
        if self._held + array.nbytes > self._budget:
            return _InFile(array)
        self._held += array.nbytes
        return _InMemory(array, self)

    def free(self, count: int) -> None:
        """So many bytes of memory are not used any more."""
        self._held -= count


class _InMemory:
    def __init__(self, array: np.ndarray, shelf: Shelf) -> None:
        self._array, self._shelf = array, shelf

    def read(self) -> np.ndarray:
        return self._array

    def __del__(self) -> None:
        self._shelf.free(self._array.nbytes)


class _InFile:
    """The file has no name, and is gone when it is closed."""

    _file: IO[bytes] | None = None

    def __init__(self, array: np.ndarray) -> None:
        self._shape, self._dtype = array.shape, array.dtype
        try:
            self._file = tempfile.TemporaryFile(prefix="onnxprune-")  # noqa: SIM115
            self._file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self._file.flush()
        except OSError as error:
            raise OnnxPruneError(
                f"no room for {array.nbytes >> 20} MB of what is known of a layer in {tempfile.gettempdir()}:"
                f" {error.strerror}; set TMPDIR to a folder with more"
            ) from error

    def read(self) -> np.ndarray:
        assert self._file is not None
        self._file.seek(0)
        return np.fromfile(self._file, self._dtype, math.prod(self._shape)).reshape(self._shape)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()
