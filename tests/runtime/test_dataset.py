from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.errors import DataError
from onnxprune.runtime.dataset import Dataset, make_dataset
from tests.models import random


def model(
    *inputs: tuple[str, ir.DataType, list[int | str] | None],
    output: list[int | str] | None = None,
) -> ir.Model:
    """A model without nodes: only its interface matters here."""

    def value(name: str, dtype: ir.DataType, shape: list[int | str] | None) -> ir.Value:
        kind = ir.TensorType(dtype)
        return ir.Value(name=name, type=kind, shape=None if shape is None else ir.Shape(shape))

    values = [value(*entry) for entry in inputs]
    outputs = [value("y", ir.DataType.FLOAT, output)]
    graph = ir.Graph(values, outputs, nodes=[], opset_imports={"": 17})
    return ir.Model(graph, ir_version=9)


F32, I64, STRING = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.STRING
IMAGES = model(("x", F32, ["n", 3, 8, 8]), output=["n", 10])


def refused(arrays: dict[str, np.ndarray], to: ir.Model, labels: np.ndarray | None = None) -> str:
    with pytest.raises(DataError) as caught:
        make_dataset(arrays, to, labels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_batches_cover_all_samples_in_order() -> None:
    data = make_dataset({"x": random(10, 3, 8, 8)}, IMAGES)
    feeds = list(data.batches(4))
    assert [len(feed["x"]) for feed in feeds] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([f["x"] for f in feeds]), data.inputs["x"])
    assert len(data) == 10


def test_take_and_subset_keep_labels_together() -> None:
    data = make_dataset({"x": random(10, 3, 8, 8)}, IMAGES, np.arange(10))
    some = data.subset([7, 2])
    assert some.labels is not None
    assert some.labels.tolist() == [7, 2]
    np.testing.assert_array_equal(some.inputs["x"], data.inputs["x"][[7, 2]])
    assert len(data.take(3)) == 3
    assert len(data.take(99)) == 10


def test_a_fixed_batch_overrules_the_wish() -> None:
    data = make_dataset({"x": random(6, 4)}, model(("x", F32, [2, 4])))
    assert [feed["x"].shape for feed in data.batches(32)] == [(2, 4)] * 3
    assert len(data.take(3)) == 4
    assert "exactly 2, which does not divide the 5" in refused(
        {"x": random(5, 4)}, model(("x", F32, [2, 4]))
    )


def test_stacked_samples_are_whole_feeds() -> None:
    state = model(("x", F32, [1, 512]), ("h", F32, [2, 1, 64]), ("sr", I64, []))
    arrays = {"x": random(5, 1, 512), "h": random(5, 2, 1, 64), "sr": np.full(5, 16000)}
    data = make_dataset(arrays, state)
    feeds = list(data.batches(32))
    assert len(feeds) == len(data) == 5
    assert [feeds[0][name].shape for name in ("x", "h", "sr")] == [(1, 512), (2, 1, 64), ()]
    np.testing.assert_array_equal(feeds[3]["h"], arrays["h"][3])


def test_inputs_without_a_common_batch_axis() -> None:
    state = model(("x", F32, [1, 512]), ("h", F32, [2, 1, 64]))
    assert "one axis more" in refused({"x": random(2, 512), "h": random(2, 1, 64)}, state)


def test_missing_input() -> None:
    both = model(("ids", I64, ["n", 8]), ("mask", I64, ["n", 8]))
    message = refused({"ids": np.zeros((2, 8), np.int64)}, both)
    assert message == "the data lack the model's input 'mask' (int64 (?, 8)); found: 'ids'"


def test_inputs_with_defaults_may_be_left_out() -> None:
    listed = model(("x", F32, ["n", 4]), ("w", F32, [4, 4]))
    w = listed.graph.inputs[1]
    w.const_value = ir.tensor(random(4, 4), name="w")
    listed.graph.register_initializer(w)
    assert len(make_dataset({"x": random(3, 4)}, listed)) == 3


def test_extra_array() -> None:
    message = refused({"x": random(2, 3, 8, 8), "label": np.zeros(2)}, IMAGES)
    assert message == "the data have 'label', which is no input of the model ('x')"


def test_wrong_type() -> None:
    message = refused({"x": np.zeros((2, 3, 8, 8))}, IMAGES)
    assert "input 'x' must be float32, the data are float64" in message
    assert ".astype('float32')" in message


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 3, 8), (3, 8, 8), (2, 1, 1, 3, 8, 8)])
def test_wrong_shape(shape: tuple[int, ...]) -> None:
    message = refused({"x": random(*shape)}, IMAGES)
    assert "input 'x' must have shape (N, 3, 8, 8)" in message
    assert str(shape) in message


def test_a_single_number_beside_samples() -> None:
    twice = model(("x", F32, ["n", 4]), ("rate", F32, []))
    message = refused({"x": random(5, 4), "rate": random(5)}, twice)
    assert "input 'rate' is a single number" in message
    assert "give each array one axis more" in message
    assert make_dataset({"x": random(5, 2, 4), "rate": random(5)}, twice).stacked


def test_unknown_shapes_take_anything() -> None:
    assert len(make_dataset({"x": random(4, 5, 6)}, model(("x", F32, None)))) == 4


@pytest.mark.parametrize("size", [0, -1])
def test_sizes_of_zero_mean_any(size: int) -> None:
    assert len(make_dataset({"x": random(3, 4)}, model(("x", F32, [size, 4])))) == 3


def test_nan() -> None:
    x = random(2, 3, 8, 8)
    x[1, 2, 3, 4:6] = np.nan
    assert refused({"x": x}, IMAGES).startswith("input 'x' has 2 NaN values")


def test_infinite_values_are_fine_where_they_may_be_masks() -> None:
    x = random(2, 3, 8, 8)
    x[0] = -np.inf
    assert len(make_dataset({"x": x}, IMAGES)) == 2
    x[1, 0, 0] = np.inf
    assert refused({"x": x}, IMAGES).startswith("input 'x' has 8 infinite values")


def test_strings() -> None:
    words = model(("text", STRING, ["n", 1]))
    assert len(make_dataset({"text": np.array([["a"], ["b"]])}, words)) == 2


def test_different_lengths() -> None:
    both = model(("a", F32, ["n", 2]), ("b", F32, ["n", 2]))
    message = refused({"a": random(3, 2), "b": random(4, 2)}, both)
    assert message.endswith("'a' 3, 'b' 4")


def test_no_samples() -> None:
    assert "no samples" in refused({"x": random(0, 3, 8, 8)}, IMAGES)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.arange(3), "there are 2 samples, but 3 labels"),
        (np.array(1), "there are 2 samples, but a scalar for labels"),
        (np.array([0, 10]), "labels must be below 10, the number of classes the model gives"),
        (np.array([0, -1]), "from 0, but there is -1"),
        (np.array([0.5, np.nan]), "the labels have 1 NaN values among 2"),
        (np.array(["cat", "dog"]), "must be integers or floats"),
    ],
)
def test_labels_that_do_not_fit(labels: np.ndarray, message: str) -> None:
    assert message in refused({"x": random(2, 3, 8, 8)}, IMAGES, labels)


def test_labels_are_kept() -> None:
    data = make_dataset({"x": random(2, 3, 8, 8)}, IMAGES, np.array([9, 0], np.uint8))
    assert data.labels is not None
    assert (data.labels.dtype, data.labels.tolist()) == (np.int64, [9, 0])
    unsized = model(("x", F32, ["n", 3]), output=None)
    assert make_dataset({"x": random(2, 3)}, unsized, np.array([999, 0])).labels is not None
    targets = make_dataset({"x": random(2, 3)}, unsized, random(2, 4)).labels
    assert targets is not None
    assert targets.dtype == np.float32


def test_data_sets_can_be_made_by_hand(tmp_path: Path) -> None:
    data = Dataset({"x": random(4, 2)})
    assert [feed["x"].shape for feed in data.batches(3)] == [(3, 2), (1, 2)]
