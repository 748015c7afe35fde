"""Arrays that are needed again later: in memory up to a budget, beyond it in a temporary file.

Second moments of wide layers, their inverses and what the original gave at every layer are more than a machine may hold
at once, but are looked at one layer at a time. So whoever gathers them puts them on a shelf, and takes each down when
its turn comes. Numbers come back as they went, wherever they waited meanwhile.
"""

from __future__ import annotations

import math
import tempfile
from bisect import insort
from typing import IO, Protocol

import numpy as np

from onnxprune.errors import OnnxPruneError

__all__ = ["AtHand", "Kept", "Shelf"]


class Kept(Protocol):
    """An array on a shelf."""

    def read(self) -> np.ndarray:
        """The array; not to be written to."""
        ...


class AtHand:
    """An array that is in memory anyway, among others that are on a shelf."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def read(self) -> np.ndarray:
        """The array; not to be written to."""
        return self._array


class Shelf:
    """A place for arrays.

    Args:
        budget: Bytes of arrays that stay in memory; those that come when it is used up go to a temporary file.
    """

    def __init__(self, budget: int) -> None:
        self._budget, self._held = budget, 0
        self._file = _File()

    def keep(self, array: np.ndarray) -> Kept:
        """Keeps an array, which must not be written to any more, as long as somebody holds what comes back.

        Raises:
            OnnxPruneError: There is no room on the disk either.
        """
        if self._held + array.nbytes > self._budget:
            return _InFile(array, self._file)
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


class _File:
    """A file without a name, gone when it is closed; where an array was, another may come."""

    def __init__(self) -> None:
        self.file: IO[bytes] | None = None
        self._end = 0
        self._gaps: list[tuple[int, int]] = []

    def write(self, array: np.ndarray) -> int:
        """Writes an array, and says where it begins."""
        start = self._place(array.nbytes)
        try:
            if self.file is None:
                self.file = tempfile.TemporaryFile(prefix="onnxprune-")  # noqa: SIM115
            self.file.seek(start)
            self.file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
            self.file.flush()
        except OSError as error:
            raise OnnxPruneError(
                f"no room for {array.nbytes >> 20} MB of what is known of a layer in {tempfile.gettempdir()}:"
                f" {error.strerror}; set TMPDIR to a folder with more"
            ) from error
        return start

    def free(self, start: int, size: int) -> None:
        """What is there is not needed any more."""
        insort(self._gaps, (start, size))
        merged = list[tuple[int, int]]()
        for begin, count in self._gaps:
            if merged and sum(merged[-1]) == begin:
                begin, count = merged[-1][0], merged.pop()[1] + count
            merged.append((begin, count))
        self._gaps = merged

    def __del__(self) -> None:
        if self.file is not None:
            self.file.close()

    def _place(self, size: int) -> int:
        """The first gap that is large enough, else the end."""
        for k, (start, count) in enumerate(self._gaps):
            if count >= size:
                left = [(start + size, count - size)] if count > size else []
                self._gaps[k : k + 1] = left
                return start
        self._end += size
        return self._end - size


class _InFile:
    def __init__(self, array: np.ndarray, file: _File) -> None:
        self._shape, self._dtype, self._size = array.shape, array.dtype, array.nbytes
        self._file, self._start = file, file.write(array)

    def read(self) -> np.ndarray:
        file = self._file.file
        assert file is not None
        file.seek(self._start)
        return np.fromfile(file, self._dtype, math.prod(self._shape)).reshape(self._shape)

    def __del__(self) -> None:
        if hasattr(self, "_start"):
            self._file.free(self._start, self._size)
