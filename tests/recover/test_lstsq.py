"""Re-fitting gives back accuracy, and leaves what was not cut alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS


def accuracy(path: Path) -> float:
    data = np.load(DIGITS / "digits.npz")
    (logits,) = run(session(path, threads=1), {"image": data["image"]})
    return float((logits.argmax(1) == data["labels"]).mean())


@pytest.mark.parametrize(("name", "least"), [("resnet", 0.9), ("vit", 0.85)])
def test_half_the_macs_and_most_of_the_accuracy(name: str, least: float, tmp_path: Path) -> None:
    original = DIGITS / f"digits_{name}.onnx"
    done = {}
    for recover in ("none", "lstsq"):
        out = tmp_path / f"{recover}.onnx"
        onnxprune.prune(
            original,
            out,
            data=DIGITS / "digits_calib.npz",
            target="macs=0.5" if name == "resnet" else "macs=0.75",
            recover=recover,
            check_latency=False,
        )
        done[recover] = accuracy(out)
    assert accuracy(original) > 0.95
    assert done["lstsq"] > done["none"]
    assert done["lstsq"] > least


def test_without_recovery_the_weights_are_the_originals(tmp_path: Path) -> None:
    original, out = DIGITS / "digits_resnet.onnx", tmp_path / "out.onnx"
    plan = tmp_path / "plan.json"
    onnxprune.prune(
        original, out, data=DIGITS / "digits_calib.npz", criterion="obs", recover="none", plan=plan
    )
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(original).graph.initializer}
    for tensor in onnx.load(out).graph.initializer:
        assert np.isin(numpy_helper.to_array(tensor), before[tensor.name]).all()
