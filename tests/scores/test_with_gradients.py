"""The criteria on gradients, through the whole program, on real networks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import OptionError
from onnxprune.graph import load
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS

CRITERIA = ("gradient", "taylor", "fisher", "hessian")
CALIBRATION = DIGITS / "digits_calib.npz"


def few(path: Path, labels: bool = True, count: int = 8) -> Path:
    arrays = dict(np.load(CALIBRATION))
    if not labels:
        del arrays["labels"]
    np.savez(path, **{name: array[:count] for name, array in arrays.items()})
    return path


def prune(out: Path, data: Path, model: str = "digits_resnet.onnx", **options: Any) -> Any:
    quick = {"check_drift": False, "check_latency": False}
    return onnxprune.prune(DIGITS / model, out, data=data, **quick, **options)


def accuracy(path: Path) -> float:
    test = np.load(DIGITS / "digits.npz")
    (logits,) = run(session(load(path)), {"image": test["image"]})
    return float((logits.argmax(1) == test["labels"]).mean())


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("granularity", ["channel", "weight", "2:4", "block:4x1"])
def test_every_criterion_serves_every_granularity(
    criterion: str, granularity: str, tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    data = few(tmp_path / "few.npz", count=2)
    report = prune(out, data, granularity=granularity, criterion=criterion)
    onnx.checker.check_model(out)
    assert any("gradients of 2 samples" in note for note in report.notes)


def test_taylor_keeps_more_accuracy_than_magnitude_and_chance(tmp_path: Path) -> None:
    data = few(tmp_path / "few.npz", labels=False, count=100)
    found = {}
    for criterion in ("taylor", "magnitude", "random"):
        out = tmp_path / f"{criterion}.onnx"
        prune(out, data, criterion=criterion, sparsity=0.25, round_to=1, recover="none")
        found[criterion] = accuracy(out)
    assert found["taylor"] > found["magnitude"]
    assert found["taylor"] > found["random"]


def test_a_threshold_on_the_gradient_zeroes_the_weights_that_do_not_matter(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    prune(
        out,
        few(tmp_path / "few.npz"),
        granularity="weight",
        criterion="gradient",
        threshold=1e-4,
    )
    before = {
        t.name: numpy_helper.to_array(t)
        for t in onnx.load(DIGITS / "digits_resnet.onnx").graph.initializer
    }
    after = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    gone = sum(int(((after[k] == 0) & (v != 0)).sum()) for k, v in before.items() if v.ndim > 1)
    assert 0 < gone < sum(v.size for v in before.values())
    assert accuracy(out) > 0.9


@pytest.mark.parametrize(
    ("criterion", "labels", "words"),
    [
        ("fisher", True, "the labels"),
        ("fisher", False, "own predictions"),
        ("hessian", True, "own predictions"),
        ("taylor", True, "own outputs"),
    ],
)
def test_the_report_says_what_the_gradients_are_of(
    criterion: str, labels: bool, words: str, tmp_path: Path
) -> None:
    data = few(tmp_path / "few.npz", labels, 2)
    report = prune(tmp_path / "out.onnx", data, criterion=criterion)
    assert any(words in note for note in report.notes)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_samples_are_refused_at_once(criterion: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--data"):
        onnxprune.prune(DIGITS / "digits_vit.onnx", tmp_path / "out.onnx", criterion=criterion)
