"""Arrays come back from a shelf as they went, and room in memory is used again."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OnnxPruneError
from onnxprune.runtime.shelf import Kept, Shelf


def test_numbers_come_back_from_memory_and_from_files() -> None:
    shelf = Shelf(80)
    first = np.arange(10.0)
    second = (
        np.arange(12, dtype=np.float32).reshape(3, 4).T
    )  # does not fit any more, and is not contiguous
    kept = [shelf.keep(first), shelf.keep(second), shelf.keep(np.zeros((0, 3)))]
    assert kept[0].read() is first
    for _ in range(2):
        np.testing.assert_array_equal(kept[1].read(), second)
    assert kept[1].read().dtype == np.float32
    assert kept[2].read().shape == (0, 3)


def test_room_that_nobody_needs_any_more_is_used_again() -> None:
    shelf = Shelf(80)
    kept = shelf.keep(np.zeros(10))
    beyond = np.ones(10)
    assert shelf.keep(beyond).read() is not beyond
    del kept
    assert shelf.keep(beyond).read() is beyond


def test_one_file_serves_all_and_its_gaps_are_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    made, real = list[Any](), tempfile.TemporaryFile

    def counted(**more: Any) -> Any:
        made.append(real(**more))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    shelf, random = Shelf(0), np.random.default_rng(0)
    held = dict[int, tuple[np.ndarray, Kept]]()
    for turn in range(200):
        array = random.standard_normal(random.integers(1, 40))
        held[int(random.integers(8))] = (array, shelf.keep(array))
        if turn % 10 == 0:
            for array, kept in held.values():
                np.testing.assert_array_equal(kept.read(), array)
    assert len(made) == 1
    assert made[0].seek(0, os.SEEK_END) < 2 * 8 * 40 * 8


def test_a_full_disk_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OnnxPruneError, match="No space left on device; set TMPDIR"):
        Shelf(0).keep(np.zeros(10))
