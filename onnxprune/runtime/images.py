"""Folders of images as a data set.

Each folder in it is a class and holds that class's images. Where all the folders have numbers for
names the number is the label, otherwise the classes count from 0 in alphabetical order.

What an ONNX file does not say is how its images were prepared. Assumed is: RGB (grey where the model
takes one channel), the shorter side resized to the model's size and the middle cut out, values from
0 to 1, then `(x - mean) / std` by channel. Models that take uint8 get 0 to 255 as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset, InputSpec, input_specs, make_dataset

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["read_images"]

_ENDINGS = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff"}


@dataclass(frozen=True)
class _Layout:
    """How a model wants its images: channels, their axis (1 or 3), and the size if it is fixed."""

    channels: int
    axis: int
    height: int | None
    width: int | None


def read_images(
    folder: Path,
    model: ir.Model,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    limit: int | None = None,
) -> Dataset:
    """Reads class folders of images for a model with one image input, NCHW or NHWC.

    Args:
        folder: The folder of class folders.
        model: The model that takes them.
        mean: What is subtracted from each channel, on the scale of 0 to 1.
        std: What each channel is divided by afterwards.
        limit: At most so many images, evenly over the classes; None for all.

    Raises:
        DataError: There are no images, the model takes none, or pillow is not installed.
    """
    required = [spec for spec in input_specs(model).values() if spec.required]
    if len(required) != 1:
        raise DataError(
            f"{folder}: the model takes {len(required)} inputs, not one of images; use .npz"
        )
    spec = required[0]
    layout = _layout(spec)
    files = _files(folder)
    order = list(_evenly(files))[:limit]
    arrays = [_prepare(path, layout) for _, path in order]
    if len({array.shape for array in arrays}) > 1:
        raise DataError(
            f"{folder}: the images have different sizes and the model says none; "
            "resize them or use .npz"
        )
    images = np.stack(arrays)
    note = "images as " + ("RGB" if layout.channels == 3 else "grey")
    if spec.dtype == np.uint8:
        note += ", values 0 to 255"
    else:
        images = _normalise(images, mean, std, layout.channels).astype(spec.dtype)
        note += f", values 0 to 1, less mean {_short(mean)}, divided by std {_short(std)}"
    if layout.axis == 1:
        images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    if layout.height and layout.width:
        note += f", shorter side resized and middle cut to {layout.height}x{layout.width}"
    labels = np.array([label for label, _ in order], np.int64)
    return make_dataset({spec.name: images}, model, labels, note)


def _layout(spec: InputSpec) -> _Layout:
    shape = spec.shape
    if shape is not None and len(shape) == 4 and spec.dtype.kind in "fu":
        if shape[1] in (1, 3):
            return _Layout(shape[1], 1, shape[2], shape[3])
        if shape[3] in (1, 3):
            return _Layout(shape[3], 3, shape[1], shape[2])
    raise DataError(
        f"input {spec.name!r} is {spec}, not a batch of images with 1 or 3 channels; use .npz"
    )


def _files(folder: Path) -> list[list[tuple[int, Path]]]:
    """(label, path) of all images, a list for each class."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    numbered = all(path.name.isdecimal() for path in classes)
    found = [
        [
            (int(path.name) if numbered else index, image)
            for image in sorted(path.iterdir())
            if image.suffix.lower() in _ENDINGS
        ]
        for index, path in enumerate(classes)
    ]
    if not any(found):
        raise DataError(
            f"{folder} has no data: expected class folders of images (.jpg, .png, ...), "
            "or ONNX test_data_set folders"
        )
    return found


def _evenly(files: Sequence[Sequence[tuple[int, Path]]]) -> list[tuple[int, Path]]:
    """The first image of each class, then the second of each, and so on."""
    return [entry for row in zip_longest(*files) for entry in row if entry is not None]


def _prepare(path: Path, layout: _Layout) -> np.ndarray:
    """One image as uint8, shape (height, width, channels)."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise DataError(
            "reading images needs pillow: pip install pillow (or onnxprune[images])"
        ) from error
    try:
        with Image.open(path) as file:
            image = file.convert("L" if layout.channels == 1 else "RGB")
            if layout.height and layout.width:
                image = _fit(image, layout.width, layout.height)
            array = np.asarray(image, np.uint8)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error
    return array.reshape(*array.shape[:2], layout.channels)


def _fit(image: Image.Image, width: int, height: int) -> Image.Image:
    """Scales the image so that it just covers the size, and cuts the middle out."""
    from PIL import Image

    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return resized.crop((left, top, left + width, top + height))


def _normalise(
    images: np.ndarray, mean: Sequence[float], std: Sequence[float], channels: int
) -> np.ndarray:
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels) and not (channels == 1 and len(set(values)) == 1):
            raise DataError(f"{name} has {len(values)} values, the images {channels} channels")
    if not all(value > 0 for value in std):
        raise DataError(f"std must be positive, not {_short(std)}")
    centre, scale = (np.asarray(values, np.float32)[:channels] for values in (mean, std))
    return (images.astype(np.float32) / np.float32(255) - centre) / scale


def _short(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"
