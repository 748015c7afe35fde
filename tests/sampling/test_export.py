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


def written(model: Path, out: Path, *options: str) -> dict[str, np.ndarray]:
    """What the gradient model gives for two digits."""
    assert main(["gradient", str(model), str(out), *options]) == 0
    data = np.load(DIGITS / "digits.npz")
    made = session(load(out))
    feed = {"image": data["image"][:2], "labels": data["labels"][:2].astype(np.int64)}
    feed["teacher"] = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    names = [value.name for value in made.get_inputs()]
    outputs = [value.name for value in made.get_outputs()]
    return dict(zip(outputs, run(made, {n: feed[n] for n in names}), strict=True))


def test_losses_add_up_with_their_weights(tmp_path: Path) -> None:
    vit, out = DIGITS / "digits_vit.onnx", tmp_path / "gradient.onnx"
    wrt = ("--wrt", "image", "--smoothing", "0.1", "--temperature", "2")
    sharp, soft = (
        written(vit, out, "--loss", name, *wrt) for name in ("cross-entropy", "distillation")
    )
    both = written(vit, out, "--loss", "cross-entropy", "--loss", "0.25*distillation", *wrt)
    assert set(both) == {"loss", "image.grad"}
    for name, value in both.items():
        np.testing.assert_allclose(value, sharp[name] + 0.25 * soft[name], rtol=1e-4, atol=1e-6)
    plain = written(vit, out, "--wrt", "image")
    assert abs(plain["loss"] - sharp["loss"]) > 1e-3


def test_an_input_of_the_loss_gets_a_name_of_its_own(tmp_path: Path) -> None:
    source, out = tmp_path / "model.onnx", tmp_path / "gradient.onnx"
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[n, 3] target) => (float[n, 3] y) { y = Tanh (target) }
    """
    onnx.save(onnx.parser.parse_model(text), source)
    assert main(["gradient", str(source), str(out), "--loss", "mse", "--wrt", "target"]) == 0
    assert [value.name for value in session(load(out)).get_inputs()] == ["target", "target_"]


def test_weights_in_branches_are_weights(tmp_path: Path) -> None:
    source, out = tmp_path / "model.onnx", tmp_path / "gradient.onnx"
    text = """
        <ir_version: 10, opset_import: ["" : 18]>
        g (float[2, 3] x, bool c) => (float[2, 3] y) {
          y = If (c) <
            then_branch = t () => (float[2, 3] p) <float[3] w = {1., 2., 3.}> { p = Mul (x, w) },
            else_branch = e () => (float[2, 3] q) { q = Neg (x) }
          >
        }
    """
    onnx.save(onnx.parser.parse_model(text), source)
    assert main(["gradient", str(source), str(out), "--loss", "y"]) == 0
    x = np.ones((2, 3), np.float32)
    _, dw = run(session(load(out)), {"x": x, "c": np.array(True)})
    np.testing.assert_array_equal(dw, [2, 2, 2])


@pytest.mark.parametrize(
    "wrong",
    [
        ("--wrt", "nothing*"),
        ("--loss", "hinge"),
        ("--loss", "two*mse"),
        ("--loss", "nan*mse"),
        ("--of", "nowhere"),
        ("--smoothing", "1.5"),
    ],
)
def test_names_that_fit_nothing_are_refused(
    wrong: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "gradient.onnx"
    assert main(["gradient", str(DIGITS / "digits_vit.onnx"), str(out), *wrong]) == 2
    assert wrong[1] in capsys.readouterr().err
    assert not out.exists()
