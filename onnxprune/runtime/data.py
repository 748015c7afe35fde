"""Reading data sets from disk: .npz, .npy, folders of images, ONNX test data."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset, input_specs, make_dataset
from onnxprune.runtime.images import read_images

__all__ = ["Dataset", "read_data"]

_LABELS = "labels"


def read_data(
    path: str | os.PathLike[str],
    model: ir.Model,
    *,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
    limit: int | None = None,
) -> Dataset:
    """Reads samples for a model.

    Args:
        path: One of
            `.npz`: an array for each input under its name, and `labels` where there are any;
            `.npy`: the array of a model's only input;
            a folder of class folders of images, see `onnxprune.runtime.images`;
            an ONNX `test_data_set_N` folder, or a folder that holds some.
        model: The model that takes them.
        mean: Of images: what is subtracted from each channel, on the scale of 0 to 1.
        std: Of images: what each channel is divided by afterwards.
        limit: At most so many samples; of images evenly over the classes. None reads all.

    Raises:
        DataError: There is nothing at the path that could be read, or it does not fit the model.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there are no data at {path}")
    if path.is_dir():
        data = _read_folder(path, model, mean, std, limit)
    elif path.suffix == ".npz":
        data = _read_npz(path, model)
    elif path.suffix == ".npy":
        data = _read_npy(path, model)
    else:
        raise DataError(
            f"{path} is no data set: expected .npz, .npy, a folder of class folders of images, "
            "or ONNX test_data_set folders"
        )
    return data if limit is None else data.take(limit)


def _read_folder(
    path: Path, model: ir.Model, mean: Sequence[float], std: Sequence[float], limit: int | None
) -> Dataset:
    sets = [path] if any(path.glob("input_*.pb")) else _numbered(path.glob("test_data_set_*"))
    if sets:
        return _read_test_data(sets, model)
    return read_images(path, model, mean=mean, std=std, limit=limit)


def _read_npz(path: Path, model: ir.Model) -> Dataset:
    try:
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            arrays = {
                name.removesuffix(".npy"): _read_array(archive, name) for name in archive.namelist()
            }
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} cannot be read as .npz: {_first_line(error)}") from error
    labels = None if _LABELS in input_specs(model) else arrays.pop(_LABELS, None)
    return make_dataset(arrays, model, labels)


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_npy(path: Path, model: ir.Model) -> Dataset:
    required = [spec.name for spec in input_specs(model).values() if spec.required]
    if len(required) != 1:
        raise DataError(
            f"{path} holds one array, but the model takes {len(required)} inputs "
            f"({', '.join(map(repr, required))}); use .npz with their names as keys"
        )
    try:
        with open(path, "rb") as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as .npy: {_first_line(error)}") from error
    return make_dataset({required[0]: array}, model)


def _read_test_data(sets: Sequence[Path], model: ir.Model) -> Dataset:
    """ONNX's own format: in each folder input_0.pb, input_1.pb, ... in the order of the inputs."""
    names = list(input_specs(model))
    feeds = [_read_test_set(folder, names) for folder in sets]
    first = feeds[0]
    for folder, feed in zip(sets, feeds, strict=True):
        for name in first:
            if name not in feed or feed[name].shape != first[name].shape:
                raise DataError(
                    f"{folder} differs from {sets[0]} in input {name!r}: all sets must have the "
                    "same inputs with the same shapes"
                )
    stacked = {name: np.stack([feed[name] for feed in feeds]) for name in first}
    return make_dataset(stacked, model)


def _read_test_set(folder: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    feed: dict[str, np.ndarray] = {}
    for position, path in enumerate(_numbered(folder.glob("input_*.pb"))):
        tensor = onnx.TensorProto()
        try:
            tensor.ParseFromString(path.read_bytes())
            array = onnx.numpy_helper.to_array(tensor)
        except (OSError, DecodeError, ValueError, TypeError) as error:
            raise DataError(f"{path} holds no ONNX tensor: {_first_line(error)}") from error
        if tensor.name in names:
            feed[tensor.name] = array
        elif position < len(names):
            feed[names[position]] = array
        else:
            raise DataError(f"{path} is one input more than the model takes ({len(names)})")
    return feed


def _numbered(paths: Iterable[Path]) -> list[Path]:
    """Paths in the order of the last number in their names."""
    return sorted(paths, key=lambda path: (int((re.findall(r"\d+", path.name) or "0")[-1]), path))


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]
