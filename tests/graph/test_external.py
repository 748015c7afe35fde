from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.errors import ModelError
from onnxprune.graph import external, load, weights
from tests.graph.files import set_location, two_layers, with_external_data
from tests.models import random


def refused(path: Path) -> str:
    """The message of the refusal: one line that names the tensor."""
    with pytest.raises(ModelError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert "'a'" in str(caught.value)
    return str(caught.value)


def test_reads_what_was_written(tmp_path: Path) -> None:
    model = load(with_external_data(tmp_path))
    assert model.meta["data_files"] == (tmp_path / "weights.bin",)
    for weight, tensor in zip(weights(model), two_layers().graph.initializer, strict=True):
        np.testing.assert_array_equal(weight.array(), onnx.numpy_helper.to_array(tensor))


def test_missing_file(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()
    assert "is missing: no file 'weights.bin'" in refused(path)


def test_file_too_short(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    with open(tmp_path / "weights.bin", "r+b") as file:
        file.truncate(100)
    assert "which has only 100" in refused(path)


def test_length_that_is_not_the_tensors(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    set_location(path, length="12")
    assert "declares 12 bytes" in refused(path)


@pytest.mark.parametrize("offset", ["999999999", "-4"])
def test_offset_outside_the_file(tmp_path: Path, offset: str) -> None:
    path = with_external_data(tmp_path)
    set_location(path, offset=offset)
    refused(path)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin"])
def test_parent_folder(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = with_external_data(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    set_location(path, location=location)
    assert "outside the model's folder" in refused(path)


def test_absolute_path(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    set_location(path, location=str(tmp_path / "weights.bin"))
    assert "outside the model's folder" in refused(path)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
@pytest.mark.parametrize("linked", ["file", "folder"])
def test_link_that_leads_outside(tmp_path: Path, linked: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = with_external_data(folder)
    if linked == "file":
        (folder / "weights.bin").rename(tmp_path / "weights.bin")
        (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    else:
        (tmp_path / "elsewhere").mkdir()
        (folder / "weights.bin").rename(tmp_path / "elsewhere" / "weights.bin")
        (folder / "sub").symlink_to(tmp_path / "elsewhere")
        set_location(path, location="sub/weights.bin")
    assert "leads outside" in refused(path)


@pytest.mark.skipif(os.name != "posix", reason="symbolic links")
def test_link_within_the_folder_is_fine(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").rename(tmp_path / "real.bin")
    (tmp_path / "weights.bin").symlink_to("real.bin")
    assert weights(load(path))[0].array().shape == (16, 64)


def test_location_is_a_folder(tmp_path: Path) -> None:
    path = with_external_data(tmp_path)
    (tmp_path / "weights.bin").unlink()
    (tmp_path / "weights.bin").mkdir()
    assert "not a regular file" in refused(path)


def test_file_that_shrinks_after_loading(tmp_path: Path) -> None:
    model = load(with_external_data(tmp_path))
    (tmp_path / "weights.bin").write_bytes(b"short")
    with pytest.raises(ModelError, match=r"'a'.*became shorter"):
        weights(model)[0].array()


@pytest.mark.parametrize(
    ("array", "dtype"),
    [
        (random(3, 5), ir.DataType.FLOAT),
        (random(3, 5).astype(np.float16), ir.DataType.FLOAT16),
        (random(3, 5).astype(ml_dtypes.bfloat16), ir.DataType.BFLOAT16),
        (np.arange(-7, 8).reshape(3, 5).astype(ml_dtypes.int4), ir.DataType.INT4),
        (np.arange(15).reshape(3, 5), ir.DataType.INT64),
        (np.array(True), ir.DataType.BOOL),
        (np.zeros((0, 4), np.float32), ir.DataType.FLOAT),
    ],
)
def test_every_type_reads_back(tmp_path: Path, array: np.ndarray, dtype: ir.DataType) -> None:
    data = b"\x01" * 12 + ir.Tensor(array, dtype=dtype).tobytes()
    (tmp_path / "t.bin").write_bytes(data)
    shape = ir.Shape(array.shape)
    tensor = external.FileTensor(
        "t.bin", 12, len(data) - 12, dtype, shape=shape, name="t", base_dir=tmp_path
    )
    np.testing.assert_array_equal(tensor.numpy(), array)
    assert tensor.numpy().dtype == array.dtype
    assert tensor.tobytes() == data[12:]
    with open(tmp_path / "copy.bin", "wb") as file:
        tensor.tofile(file)
    assert (tmp_path / "copy.bin").read_bytes() == data[12:]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_reading_keeps_no_mapping(tmp_path: Path) -> None:
    path = with_external_data(tmp_path, width=4096)
    script = (
        "import sys; from onnxprune.graph import load, weights\n"
        "model = load(sys.argv[1])\n"
        "arrays = [weight.array().sum() for weight in weights(model)]\n"
        "assert 'weights.bin' not in open('/proc/self/maps').read()"
    )
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)


def test_plain_external_tensors_read_without_a_mapping(tmp_path: Path) -> None:
    model = ir.load(with_external_data(tmp_path))
    tensor = model.graph.initializers["a"].const_value
    assert isinstance(tensor, ir.ExternalTensor)
    assert external.read(tensor).shape == (16, 64)
    assert tensor.raw is None
