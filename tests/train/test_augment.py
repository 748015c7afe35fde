"""Moving images about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train import Source, TrainOptions, memory, objective
from onnxprune.train.augment import augment, copies
from onnxprune.train.finetune import fit
from onnxprune.train.options import make_options
from tests.train.steps import digits

IMAGES = np.arange(40 * 3 * 16 * 16, dtype=np.float32).reshape(40, 3, 16, 16)


def test_flips_mirror_half_of_the_images() -> None:
    (moved,) = augment({"x": IMAGES}, ["flip"], np.random.default_rng(0)).values()
    same = (moved == IMAGES).all((1, 2, 3))
    mirrored = (moved == IMAGES[..., ::-1]).all((1, 2, 3))
    assert (same ^ mirrored).all()
    assert 10 < same.sum() < 30


def test_crops_shift_by_an_eighth_at_most() -> None:
    (moved,) = augment({"x": IMAGES}, ["crop"], np.random.default_rng(0)).values()
    shifts = set()
    for before, after in zip(IMAGES, moved, strict=True):
        dy, dx = divmod(int(after[0, 8, 8] - before[0, 8, 8]) + 2 * 16 + 2, 16)
        shifts.add((dy - 2, dx - 2))
        expected = before[:, 8 + dy - 2, 6 + dx - 2 : 10 + dx - 2]
        np.testing.assert_array_equal(after[:, 8, 6:10], expected)
    assert len(shifts) > 12
    assert max(abs(n) for shift in shifts for n in shift) == 2


def test_half_of_the_images_are_mixed_with_another() -> None:
    flat = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None, None], IMAGES.shape)
    (mixed,) = augment({"x": flat}, ["mix"], np.random.default_rng(0)).values()
    kinds = [len(np.unique(image)) for image in mixed]
    same = [k for k in range(40) if (mixed[k] == k).all()]
    assert 10 < len(same) < 30
    blended = [k for k in range(40) if kinds[k] == 1 and k not in same]
    pasted = [k for k in range(40) if kinds[k] == 2]
    assert len(blended) > 4
    assert len(pasted) > 4
    assert len(same) + len(blended) + len(pasted) == 40
    for k in pasted:  # a rectangle of one other image in the image itself
        other = next(v for v in np.unique(mixed[k]) if v != k)
        rows, columns = np.nonzero(mixed[k][0] == other)
        assert (
            mixed[k][:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] == other
        ).all()


def test_channels_may_come_last_and_other_inputs_stay() -> None:
    last = IMAGES.transpose(0, 2, 3, 1)
    feed = {"first": IMAGES, "last": last, "tokens": np.arange(40)}
    moved = augment(feed, ["flip"], np.random.default_rng(0))
    assert (moved["tokens"] == feed["tokens"]).all()
    flipped = augment({"last": last}, ["flip"], np.random.default_rng(0))["last"]
    first = augment({"x": IMAGES}, ["flip"], np.random.default_rng(0))["x"]
    np.testing.assert_array_equal(flipped.transpose(0, 3, 1, 2), first)


def test_zoomed_images_are_parts_of_their_own() -> None:
    rows, columns = np.meshgrid(np.arange(12.0), np.arange(16.0), indexing="ij")
    images = np.stack([np.stack([rows, columns, rows + columns])] * 64).astype(np.float32)
    found = augment({"x": images}, ["zoom"], np.random.default_rng(0))["x"]
    assert found.shape == images.shape
    whole = (found == images).all((1, 2, 3))
    assert 16 < whole.sum() < 48
    np.testing.assert_allclose(
        found[:, 2], found[:, 0] + found[:, 1], rtol=1e-5
    )  # one part for all channels
    heights, widths = (
        np.ptp(found[:, k], axis=(1, 2)) / (size - 1) for k, size in ((0, 12), (1, 16))
    )
    areas = heights * widths
    assert areas.min() > 0.2
    assert areas[~whole].std() > 0.1
    for k in (0, 1):
        steps = np.diff(found[:, k], axis=1 + k)
        np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1, :1], steps.shape), atol=1e-4)


def test_the_teacher_sees_what_the_model_sees() -> None:
    model, data = digits("resnet")
    data = data.take(8)
    goal, said = objective(model, data, model, alpha=1.0), session(model)
    source = Source(data, goal, said, ways=["flip", "crop"], seed=3)
    feed = source.feed(np.arange(8))
    assert (feed["image"] != data.inputs["image"]).any()
    (expected,) = run(said, {"image": feed["image"]})
    np.testing.assert_allclose(feed["train/teacher/logits"], expected, rtol=1e-5, atol=1e-5)


def test_the_teacher_is_asked_twice_about_images_that_are_mirrored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = list[int]()

    def counted(made: Any, feed: Any, names: Any) -> Any:
        asked.append(len(feed["image"]))
        return run(made, feed, names)

    monkeypatch.setattr(memory, "run", counted)
    model, data = digits("resnet")
    data = data.take(20)
    goal, said = objective(model, data, model, alpha=1.0), session(model)
    source = Source(data, goal, said, ways=["flip"], seed=3)
    for epoch in range(30):
        rows = np.random.default_rng(epoch).permutation(20)[:16]
        feed = source.feed(rows)
        (expected,) = run(said, {"image": feed["image"]})
        np.testing.assert_allclose(feed["train/teacher/logits"], expected, rtol=1e-4, atol=1e-4)
    assert sum(asked) == 40


def test_no_more_is_remembered_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = digits("resnet")
    asked = list[int]()

    def counted(made: Any, feed: Any, names: Any) -> Any:
        asked.append(len(feed["image"]))
        return run(made, feed, names)

    monkeypatch.setattr(memory, "run", counted)
    said, images = session(model), data.inputs["image"][:12]
    ask = memory.Memory(said, ["logits"], room=5 * 10 * 4)
    for first in (0, 5, 0, 3):
        part = images[first : first + 5]
        (found,), (expected,) = ask({"image": part}), run(said, {"image": part})
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert asked == [5, 5, 3]


def test_only_images_can_be_moved_about() -> None:
    with pytest.raises(OptionError, match="unknown augmentation 'spin'"):
        TrainOptions(augment=("spin",))
    assert make_options(augment="flip, crop").augment == ("flip", "crop")
    assert make_options(augment="none").augment == ()
    assert make_options(augment=None).augment is None
    model, data = digits("resnet")
    goal = objective(model, data)
    with pytest.raises(OptionError, match="only images"):
        Source(Dataset({"x": np.zeros((4, 2), np.float32)}), goal, ways=["flip"])
    with pytest.raises(OptionError, match="mixed images have no label"):
        Source(data, goal, ways=["mix"])


def test_images_without_labels_are_moved_about_unless_told_otherwise() -> None:
    model, data = digits("resnet")
    unlabelled = replace(data.take(16), labels=None)
    for given, words in ((None, "flip, crop, zoom, mix"), ((), ""), (("flip",), "flip")):
        options = TrainOptions(epochs=1, block_epochs=0, augment=given, threads=1)
        told = fit(model, unlabelled, model, options).objective
        assert told.partition(" on images augmented by ")[2] == words
    options = TrainOptions(epochs=1, threads=1)
    assert "augmented" not in fit(model, data.take(16), model, options).objective


def test_copies_stand_behind_the_samples_as_they_are() -> None:
    feed = {"x": IMAGES, "age": np.arange(40)}
    found = copies(feed, 3, ["flip"], np.random.default_rng(0))
    first, *others = (found["x"][start : start + 40] for start in (0, 40, 80))
    np.testing.assert_array_equal(first, IMAGES)
    for moved in others:
        flipped = (moved != IMAGES).any((1, 2, 3))
        assert 10 < flipped.sum() < 30
        np.testing.assert_array_equal(moved[flipped], IMAGES[flipped, ..., ::-1])
    assert (others[0] != others[1]).any()
    np.testing.assert_array_equal(found["age"], np.tile(np.arange(40), 3))
