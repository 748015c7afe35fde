"""A latency asked for on the command line is what the written model takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper

import onnxprune
from onnxprune.errors import NothingToPruneError
from tests.models import random, write


def wide(path: Path) -> Path:
    """Two layers of a size at which a run is all kernels."""
    weights = {"a": random(256, 1024), "b": random(1024, 256, seed=1)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    return write(path, nodes, weights, {"x": [64, 256]})


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_half_the_time(tmp_path: Path) -> None:
    report = onnxprune.prune(
        wide(tmp_path / "in.onnx"), tmp_path / "out.onnx", target="latency=0.5"
    )
    assert report.after is not None
    assert 0.25 < report.after.macs / report.before.macs < 0.7
    assert (report.dims[0].kept % 8) == 0
    assert any("of the time it took" in note for note in report.notes)


def test_what_no_width_reaches_is_refused(tmp_path: Path) -> None:
    model = wide(tmp_path / "in.onnx")
    with pytest.raises(NothingToPruneError, match=r"the target latency=0\.001 is out of reach"):
        onnxprune.prune(model, tmp_path / "out.onnx", target="latency=0.001")
