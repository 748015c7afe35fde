"""Images moved about and mixed, so that few of them go further.

    flip    half of the images mirrored from left to right
    crop    each shifted by up to an eighth of its size, its own mirror image beyond the edge
    zoom    of half of the images a part, from a quarter of the area to all of it, as large as the whole
    mix     half of the images mixed with another of the batch: blended, u a + (1 - u) b with u uniform, or a
            rectangle of b, of the share 1 - u of the area, pasted into a

Labels do not follow a mixture here: only a teacher, who says something about every input, goes with `mix`. Whether
labels survive being flipped and shifted depends on what is in the images.

Sources: He et al. 2016, arXiv:1512.03385, section 4.2 (flips, crops; padded with zeros there); Szegedy
et al. 2015, arXiv:1409.4842, section 6 (parts of different sizes); Zhang et al. 2018,
arXiv:1710.09412 (mixup); Yun et al. 2019, arXiv:1905.04899 (CutMix); Beyer et al. 2022, arXiv:2106.05237 (that a
teacher who sees the same mixture makes distillation from it consistent).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from onnxprune.errors import OptionError

__all__ = ["WAYS", "augment", "check_ways", "copies", "is_images"]

WAYS = ("flip", "crop", "zoom", "mix")
SHIFT = 1 / 8
"""Largest shift, as a share of height and width."""
LEAST = 0.25
"""Smallest part of an image's area that `zoom` shows."""
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
    found = dict(feed)
    for name, array in feed.items():
        if is_images(array):
            images = _moved(array, ways, random)
            images = _zoomed(images, random) if "zoom" in ways else images
            found[name] = _mixed(images, random) if "mix" in ways else images
    return found


def copies(
    feed: Mapping[str, np.ndarray], times: int, ways: Collection[str], random: np.random.Generator
) -> dict[str, np.ndarray]:
    """The samples as they are, and behind them the same ones moved about, `times` times over in all."""
    parts = [feed, *(augment(feed, ways, random) for _ in range(times - 1))]
    return {name: np.concatenate([part[name] for part in parts]) for name in feed}


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


def _zoomed(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height = _height(images)
    assert height is not None
    found = images.copy()
    sizes = images.shape[height : height + 2]
    for k, image in enumerate(images):
        if random.random() < 0.5:
            continue
        area, shape = random.uniform(LEAST, 1.0), np.exp(random.uniform(-1.0, 1.0) * np.log(4 / 3))
        sides = np.minimum(np.sqrt(area * np.array([shape, 1 / shape])), 1.0)
        starts = random.random(2) * (1.0 - sides)
        part = image.astype(np.float32)
        for axis, size, start, side in zip((height - 1, height), sizes, starts, sides, strict=True):
            part = _stretched(part, axis, start * (size - 1) + side * np.arange(size))
        found[k] = part if images.dtype.kind == "f" else np.rint(part)
    return found


def _stretched(image: np.ndarray, axis: int, places: np.ndarray) -> np.ndarray:
    """An image at places between its rows or columns, interpolated."""
    low = np.minimum(places.astype(int), image.shape[axis] - 1)
    high = np.minimum(low + 1, image.shape[axis] - 1)
    share = np.expand_dims(
        (places - low).astype(np.float32), [k for k in range(image.ndim) if k != axis]
    )
    return np.asarray((1 - share) * image.take(low, axis) + share * image.take(high, axis))


def _mixed(images: np.ndarray, random: np.random.Generator) -> np.ndarray:
    height = _height(images)
    assert height is not None
    found = images.copy()
    others = random.permutation(len(images))
    sizes = np.array(images.shape[height : height + 2])
    for k, other in enumerate(others):
        kind, u = random.integers(4), random.random()
        corner = random.random(2)
        if kind == 0:
            found[k] = u * images[k] + (1.0 - u) * images[other]
        elif kind == 1:
            box = np.rint(sizes * np.sqrt(1.0 - u)).astype(int)
            top, left = ((sizes - box + 1) * corner).astype(int)
            area = [slice(None)] * (images.ndim - 1)
            area[height - 1] = slice(top, top + box[0])
            area[height] = slice(left, left + box[1])
            found[k][tuple(area)] = images[other][tuple(area)]
    return found


def _places(size: int, shift: int) -> np.ndarray:
    """Where each row of a shifted image comes from, mirrored at the edges."""
    places = np.abs(np.arange(size) + shift)
    return np.where(places < size, places, 2 * (size - 1) - places)
