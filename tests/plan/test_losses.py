"""What each further cut of a Dim costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import onnxprune
from onnxprune.plan.losses import CUTS
from tests.models import DIGITS, random, write


def test_losses_rise_and_tell_what_is_redundant(tmp_path: Path) -> None:
    """Hidden units 8 to 15 repeat 0 to 7: half of them go at no loss, and then each costs."""
    half = random(6, 8)
    weights = {"a": np.concatenate([half, half], 1), "b": random(16, 3, seed=1)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    model = write(tmp_path / "m.onnx", nodes, weights, {"x": ["n", 6]})
    np.savez(tmp_path / "d.npz", x=random(400, 6, seed=2))
    report = onnxprune.inspect(model, data=tmp_path / "d.npz")
    (losses,) = [row.losses for row in report.dims if row.losses]
    assert len(losses) == len(CUTS)
    assert list(losses) == sorted(losses)
    assert losses[CUTS.index(0.5)] < 0.02 * losses[-1]
    assert losses[CUTS.index(0.75)] > 3 * losses[CUTS.index(0.5)]


def test_frozen_dims_have_none() -> None:
    report = onnxprune.inspect(DIGITS / "digits_resnet.onnx", data=DIGITS / "digits_calib.npz")
    for row in report.dims:
        assert bool(row.losses) == (not row.reason and not row.inexact)
    plain = onnxprune.inspect(DIGITS / "digits_resnet.onnx")
    assert not any(row.losses for row in plain.dims)


@pytest.mark.parametrize("name", ["digits_vit.onnx"])
def test_of_transformers_too(name: str) -> None:
    report = onnxprune.inspect(DIGITS / name, data=DIGITS / "digits_calib.npz")
    assert any(row.losses for row in report.dims)
