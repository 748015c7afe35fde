"""The k least salient of a stream of arrays, exactly, in the memory of one array.

Non-negative float32 numbers are ordered as their bit patterns are ordered as unsigned integers. So the k-th smallest
of any number of arrays is found in two passes: a histogram of the upper 16 bits tells in which bin it lies, one of
the lower 16 bits inside that bin tells which number it is (a radix select). Numbers equal to it are taken in stream
order until there are k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.plan.masks import BoolArray
from onnxprune.scores.criterion import Array

__all__ = ["Cut", "fraction_of", "least"]

_Bits = npt.NDArray[np.uint32]
_CHUNK = 1 << 20
_HALF = 16
_BINS = 1 << _HALF


@dataclass(frozen=True)
class Cut:
    """Where the k least salient end: below `bits` all of them, at `bits` the first `ties`."""

    bits: int
    ties: int

    def mask(self, saliency: Array) -> tuple[BoolArray, Cut]:
        """Marks the least salient of the next array of the stream.

        Returns:
            The mask, and the cut for the array after it.
        """
        bits = _bits(saliency)
        mask = bits < self.bits
        equal = np.flatnonzero(bits == self.bits)[: self.ties]
        mask.reshape(-1)[equal] = True
        return mask, Cut(self.bits, self.ties - len(equal))


def fraction_of(sparsity: float, count: int) -> int:
    """How many of `count` a sparsity removes: never more than asked for, whatever binary fractions do to 0.29 * 100."""
    return min(count, int(sparsity * count + 1e-6))


def least(stream: Callable[[], Iterable[Array]], k: int) -> Cut:
    """The cut that marks exactly the k least of all numbers in the stream.

    Args:
        stream: Gives the same arrays, float32 and not negative, each time it is called (twice).
        k: How many; all if the stream is shorter.
    """
    if k <= 0:
        return Cut(0, 0)
    upper, before = _locate(_histogram(_chunks(stream())), k)
    inside = (part[part >> _HALF == upper] & (_BINS - 1) for part in _chunks(stream()))
    lower, below = _locate(_histogram(inside, shift=0), k - before)
    return Cut((upper << _HALF) | lower, k - before - below)


def _locate(counts: npt.NDArray[np.int64], k: int) -> tuple[int, int]:
    """The bin of the k-th smallest (the last one if there are fewer), and how many lie in the bins before it."""
    total = np.cumsum(counts)
    place = min(int(np.searchsorted(total, k)), _BINS - 1)
    return place, int(total[place] - counts[place])


def _histogram(parts: Iterable[_Bits], shift: int = _HALF) -> npt.NDArray[np.int64]:
    counts = np.zeros(_BINS, np.int64)
    for part in parts:
        counts += np.bincount(part >> shift, minlength=_BINS)
    return counts


def _chunks(arrays: Iterable[Array]) -> Iterator[_Bits]:
    for array in arrays:
        bits = _bits(array).reshape(-1)
        for start in range(0, len(bits), _CHUNK):
            yield bits[start : start + _CHUNK]


def _bits(saliency: Array) -> _Bits:
    return np.ascontiguousarray(saliency, np.float32).view(np.uint32)
