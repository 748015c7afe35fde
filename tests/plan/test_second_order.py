"""What samples tell about channels, and what they are too few for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

import onnxprune
from tests.models import random, write


def notes(folder: Path, samples: int) -> list[str]:
    """Of pruning a hidden layer of 32 units."""
    weights = {"a": random(6, 32), "b": random(32, 3, seed=1)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    model = write(folder / "m.onnx", nodes, weights, {"x": ["n", 6]})
    np.savez(folder / "d.npz", x=random(samples, 6, seed=2))
    report = onnxprune.prune(
        model, folder / "o.onnx", data=folder / "d.npz", sparsity=0.25, check_latency=False
    )
    return [note for note in report.notes if note.startswith("few samples")]


def test_fewer_samples_than_a_layer_has_channels_are_told(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, 12)
    assert note.startswith("few samples: 'b' reads 32 numbers at once and met 12 rows")
    assert "1 of 1 layers" in note


def test_enough_samples_are_not(tmp_path: Path) -> None:
    assert notes(tmp_path, 200) == []
