"""Re-fitting gives back accuracy, and leaves what was not cut alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.dims import cut, trace
from onnxprune.progress import Silent
from onnxprune.recover import Original, lstsq
from onnxprune.runtime.dataset import make_dataset
from onnxprune.runtime.measure import measure
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


@pytest.mark.parametrize("rounds", [1, 6])
def test_a_relu_frees_the_fit_from_what_it_hides(
    rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    x = random.standard_normal((256, 12)).astype(np.float32)
    x[:, 6:] += x[:, :6] ** 2 - 1  # what goes can only in part be told from what stays
    model = ir.from_onnx_text(
        """
        <ir_version: 9, opset_import: ["" : 17]>
        g (float[N, 12] x) => (float[N, 8] z) { a = Gemm(x, e, d) h = Gemm(a, w, b) z = Relu(h) }
        """
    )
    weights = {
        "e": np.eye(12),
        "d": np.zeros(12),
        "w": random.normal(size=(12, 8)),
        "b": np.zeros(8),
    }
    for name, array in weights.items():
        value = next(
            v for node in model.graph for v in node.inputs if v is not None and v.name == name
        )
        value.const_value = ir.tensor(array.astype(np.float32), name=name)
        model.graph.register_initializer(value)
    data = make_dataset({"x": x}, model)
    tracing = trace(model, measure(model, data.shapes_of_one))
    (info,) = tracing.free()
    keep = {info.dim: np.arange(12) < 6}

    def error(rounds: int) -> float:
        monkeypatch.setattr(lstsq, "ROUNDS", rounds)
        pruned = cut(tracing, keep)
        (done,) = lstsq.fit(Original(tracing, [data]), keep, pruned, Silent())
        assert done.name == "w"
        before, after = (run(session(each), {"x": x})[0] for each in (model, pruned))
        return float(((after - before) ** 2).sum())

    assert error(rounds) < 0.95 * error(0)
