"""What a teacher says, remembered: of images that are mirrored at most there are two of each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from onnxprune.runtime.sessions import run

__all__ = ["LARGEST", "Memory"]

LARGEST = 1 << 29
"""Bytes of answers that are kept."""


class Memory:
    """Runs a session on no sample twice, as long as there is room for what it gave.

    Args:
        made: The session; takes any number of samples, and gives a row for each that does not depend on the others.
        names: The outputs wanted.
        room: Bytes of answers kept.
    """

    def __init__(
        self, made: ort.InferenceSession, names: Sequence[str], room: int = LARGEST
    ) -> None:
        self._made, self._names, self._room = made, list(names), room
        self._kept: dict[bytes, list[np.ndarray]] = {}

    def __call__(self, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs for some samples, which are along axis 0 of every input.

        Raises:
            ModelError: onnxruntime fails.
        """
        count = len(next(iter(feed.values())))
        keys = [_digest([array[k] for array in feed.values()]) for k in range(count)]
        new = [k for k, key in enumerate(keys) if key not in self._kept]
        found = dict[bytes, list[np.ndarray]]()
        if new:
            said = run(self._made, {name: array[new] for name, array in feed.items()}, self._names)
            found = {keys[k]: [array[row] for array in said] for row, k in enumerate(new)}
        rows = [found.get(key) or self._kept[key] for key in keys]
        size = sum(array.nbytes for each in found.values() for array in each)
        if size <= self._room:
            self._kept.update(found)
            self._room -= size
        return [np.stack(arrays) for arrays in zip(*rows, strict=True)]


def _digest(arrays: Sequence[np.ndarray]) -> bytes:
    """What tells samples apart."""
    found = hashlib.blake2b(digest_size=16)
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()
