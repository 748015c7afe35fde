"""Images moved about, so that few of them go further: what a class is does not change, nor what a teacher should say.

    flip    half of the images mirrored from left to right
    crop    each shifted by up to an eighth of its size, its own mirror image beyond the edge

Source: He et al. 2016, arXiv:1512.03385, section 4.2 (which pads with zeros).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from onnxprune.errors import OptionError

__all__ = ["WAYS", "augment", "check_ways", "is_images"]

WAYS = ("flip", "crop")
SHIFT = 1 / 8
"""Largest shift, as a share of height and width."""
_CHANNELS = (1, 3, 4)


def check_ways(ways: Collection[str]) -> None:
    """Checks names.

    Raises:
        OptionError: There is no such way.
    """
    for way in ways:
        if way not in WAYS:
            raise OptionError(f"unknown augmentation {way!r}: choose from {', '.join(WAYS)}")


def is_images(array: np.ndarray) -> bool:
    """Whether an input holds images, (N, channels, height, width) or (N, height, width, channels)."""
    return array.ndim == 4 and _height(array) is not None


def augment(
    feed: Mapping[str, np.ndarray], ways: Collection[str], random: np.random.Generator
) -> dict[str, np.ndarray]:
    """A feed whose images were moved about; other inputs are as they were.

    Args:
        feed: Input name to array, samples along axis 0.
        ways: Names of `WAYS`.
        random: Where chance comes from.
    """
    return {
        name: _moved(array, ways, random) if is_images(array) else array
        for name, array in feed.items()
    }


def _height(array: np.ndarray) -> int | None:
    """The axis of the height, before that of the width."""
    if array.shape[1] in _CHANNELS:
        return 2
    return 1 if array.shape[3] in _CHANNELS else None


def _moved(images: np.ndarray, ways: Collection[str], random: np.random.Generator) -> np.ndarray:
    height = _height(images)
    assert height is not None
    found = images.copy()
    count, sizes = len(images), images.shape[height : height + 2]
    flips = random.random(count) < 0.5 if "flip" in ways else np.zeros(count, bool)
    reach = [int(size * SHIFT) if "crop" in ways else 0 for size in sizes]
    shifts = np.stack([random.integers(-r, r + 1, count) for r in reach], axis=1)
    for k in range(count):
        rows, columns = (_places(n, s) for n, s in zip(sizes, shifts[k], strict=True))
        columns = columns[::-1] if flips[k] else columns
        moved = np.take(np.take(images[k], rows, axis=height - 1), columns, axis=height)
        found[k] = moved
    return found


def _places(size: int, shift: int) -> np.ndarray:
    """Where each row of a shifted image comes from, mirrored at the edges."""
    places = np.abs(np.arange(size) + shift)
    return np.where(places < size, places, 2 * (size - 1) - places)
