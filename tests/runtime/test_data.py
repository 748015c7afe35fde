from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import numpy_helper

from onnxprune.errors import DataError
from onnxprune.runtime.data import read_data
from tests.models import random
from tests.runtime.test_dataset import F32, I64, IMAGES, model

GREY = model(("x", ir.DataType.UINT8, ["n", 4, 6, 1]))


def refused(path: Path, to: ir.Model) -> str:
    with pytest.raises(DataError) as caught:
        read_data(path, to)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def picture(path: Path, width: int, height: int, colour: tuple[int, int, int]) -> None:
    image = pytest.importorskip("PIL.Image")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.new("RGB", (width, height), colour).save(path)


def test_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=random(5, 3, 8, 8), labels=np.arange(5))
    data = read_data(tmp_path / "d.npz", IMAGES)
    assert data.labels is not None
    assert (len(data), data.labels.tolist()) == (5, [0, 1, 2, 3, 4])
    assert len(read_data(tmp_path / "d.npz", IMAGES, limit=2)) == 2


def test_an_input_may_be_called_labels(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", labels=random(5, 3))
    data = read_data(tmp_path / "d.npz", model(("labels", F32, ["n", 3])))
    assert data.labels is None
    assert list(data.inputs) == ["labels"]


def test_npy(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", random(5, 3, 8, 8))
    assert len(read_data(tmp_path / "d.npy", IMAGES)) == 5
    both = model(("a", F32, ["n", 2]), ("b", F32, ["n", 2]))
    assert "takes 2 inputs ('a', 'b'); use .npz" in refused(tmp_path / "d.npy", both)


@pytest.mark.parametrize("name", ["d.npz", "d.npy"])
@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert f"{name} cannot be read as" in refused(tmp_path / name, IMAGES)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}], object))
    assert "cannot be read" in refused(tmp_path / "d.npz", IMAGES)


def test_nothing_there(tmp_path: Path) -> None:
    assert "there are no data at" in refused(tmp_path / "none.npz", IMAGES)


def test_another_kind_of_file(tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text("1,2,3")
    assert "expected .npz, .npy, a folder" in refused(tmp_path / "d.csv", IMAGES)


def test_empty_folder(tmp_path: Path) -> None:
    assert "expected class folders of images" in refused(tmp_path, IMAGES)


def test_images_by_name_of_the_class(tmp_path: Path) -> None:
    picture(tmp_path / "dog" / "a.png", 8, 8, (255, 0, 0))
    picture(tmp_path / "cat" / "b.png", 16, 8, (0, 255, 51))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    data = read_data(tmp_path, IMAGES)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    assert data.inputs["x"].shape == (2, 3, 8, 8)
    np.testing.assert_allclose(data.inputs["x"][0].mean((1, 2)), [0, 1, 0.2], atol=1e-6)
    np.testing.assert_allclose(data.inputs["x"][1].mean((1, 2)), [1, 0, 0], atol=1e-6)
    assert data.note.startswith("images as RGB, values 0 to 1, less mean (0, 0, 0)")


def test_numbers_are_labels(tmp_path: Path) -> None:
    for name in ("0007", "0002"):
        picture(tmp_path / name / "a.png", 8, 8, (0, 0, 0))
    labels = read_data(tmp_path, IMAGES).labels
    assert labels is not None
    assert labels.tolist() == [2, 7]


def test_mean_and_deviation(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 8, 8, (255, 0, 51))
    data = read_data(tmp_path, IMAGES, mean=(0.5, 0.5, 0), std=(0.5, 0.25, 0.2))
    np.testing.assert_allclose(data.inputs["x"][0, :, 0, 0], [1, -2, 1], atol=1e-6)
    with pytest.raises(DataError, match="std must be positive"):
        read_data(tmp_path, IMAGES, std=(1, 0, 1))
    with pytest.raises(DataError, match="mean has 2 values, the images 3 channels"):
        read_data(tmp_path, IMAGES, mean=(1, 0))


def test_grey_channels_last_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 60, 40, (200, 200, 200))
    data = read_data(tmp_path, GREY)
    assert data.inputs["x"].shape == (1, 4, 6, 1)
    assert data.inputs["x"].dtype == np.uint8
    assert np.unique(data.inputs["x"]).tolist() == [200]


def test_the_middle_is_cut_out(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    array = np.zeros((8, 24, 3), np.uint8)
    array[:, 8:16] = 255
    (tmp_path / "a").mkdir()
    image.fromarray(array).save(tmp_path / "a" / "a.png")
    assert (read_data(tmp_path, IMAGES).inputs["x"] == 1).all()


def test_a_limit_takes_evenly_of_all_classes(tmp_path: Path) -> None:
    for name in "abc":
        for index in range(4):
            picture(tmp_path / name / f"{index}.png", 8, 8, (0, 0, 0))
    labels = read_data(tmp_path, IMAGES, limit=6).labels
    assert labels is not None
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]


def test_open_sizes_need_images_of_one_size(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 8, 8, (0, 0, 0))
    picture(tmp_path / "a" / "b.png", 8, 9, (0, 0, 0))
    assert "different sizes" in refused(tmp_path, model(("x", F32, ["n", 3, "h", "w"])))


def test_models_that_take_no_images(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 8, 8, (0, 0, 0))
    assert "not a batch of images" in refused(tmp_path, model(("x", F32, ["n", 7])))
    both = model(("a", F32, ["n", 3, 8, 8]), ("b", F32, ["n", 2]))
    assert "takes 2 inputs" in refused(tmp_path, both)


def test_a_broken_image(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(b"\x89PNG broken")
    assert "a.png cannot be read as an image" in refused(tmp_path, IMAGES)


def test_without_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(tmp_path / "a" / "a.png", 8, 8, (0, 0, 0))
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "reading images needs pillow: pip install" in refused(tmp_path, IMAGES)


def write_test_set(folder: Path, *arrays: np.ndarray, names: tuple[str, ...] = ()) -> None:
    folder.mkdir()
    for index, array in enumerate(arrays):
        name = names[index] if names else None
        content = numpy_helper.from_array(array, name).SerializeToString()
        (folder / f"input_{index}.pb").write_bytes(content)


def test_onnx_test_data(tmp_path: Path) -> None:
    two = model(("ids", I64, [1, 4]), ("scale", F32, []))
    for index in range(11):
        ids, scale = np.full((1, 4), index), np.float32(index)
        write_test_set(tmp_path / f"test_data_set_{index}", ids, np.asarray(scale))
    data = read_data(tmp_path, two)
    assert [int(feed["ids"][0, 0]) for feed in data.batches()] == list(range(11))
    assert [float(feed["scale"]) for feed in data.batches()] == list(range(11))
    assert len(read_data(tmp_path / "test_data_set_3", two)) == 1


def test_onnx_test_data_by_name(tmp_path: Path) -> None:
    two = model(("a", F32, [1]), ("b", F32, [1]))
    write_test_set(tmp_path / "test_data_set_0", np.float32([1]), np.float32([2]), names=("b", "a"))
    feed = next(read_data(tmp_path, two).batches())
    assert (feed["a"][0], feed["b"][0]) == (2, 1)


def test_onnx_test_data_of_different_shapes(tmp_path: Path) -> None:
    write_test_set(tmp_path / "test_data_set_0", random(1, 4))
    write_test_set(tmp_path / "test_data_set_1", random(1, 5))
    assert "differs from" in refused(tmp_path, model(("x", F32, [1, "n"])))


def test_broken_onnx_test_data(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(b"hello")
    assert "input_0.pb holds no ONNX tensor" in refused(tmp_path, IMAGES)
