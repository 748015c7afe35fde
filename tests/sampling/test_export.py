"""The verb `gradient` writes a model that onnxruntime runs and that gives the loss and its slopes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.cli import main
from onnxprune.graph import load
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS


def test_the_verb_writes_loss_and_gradients(tmp_path: Path) -> None:
    out = tmp_path / "gradient.onnx"
    assert main(["gradient", str(DIGITS / "digits_vit.onnx"), str(out), "--wrt", "image"]) == 0
    onnx.checker.check_model(out)
    data = np.load(DIGITS / "digits.npz")
    x, labels = data["image"][:2], data["labels"][:2].astype(np.int64)
    made = session(load(out))
    assert [output.name for output in made.get_outputs()] == ["loss", "image.grad"]
    _, slope = run(made, {"image": x, "labels": labels})
    step = 1e-2 * slope / np.abs(slope).max()
    up, down = (run(made, {"image": x + s * step, "labels": labels})[0] for s in (1, -1))
    np.testing.assert_allclose(float(up - down), 2 * float((slope * step).sum()), rtol=0.02)


@pytest.mark.parametrize("wrong", [("--wrt", "nothing*"), ("--loss", "hinge"), ("--of", "nowhere")])
def test_names_that_fit_nothing_are_refused(
    wrong: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gradient.onnx"
    assert main(["gradient", str(DIGITS / "digits_vit.onnx"), str(out), *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
    assert not out.exists()
