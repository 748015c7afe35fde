"""Biases take over what removed channels gave on average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import OptionError
from onnxprune.runtime.sessions import run, session
from tests.dims.exact import build
from tests.models import DIGITS

FORMS = {
    "a conv with a bias, padded": "y = Conv<pads=[1,1,1,1]>(r, v, c)",
    "a conv without": "y = Conv(r, v)",
    "a product": "m = MatMul(r, v)\n y = Sigmoid(m)",
    "a product and its Add": "m = MatMul(r, v)\n y = Add(m, c)",
    "a sum of branches": "m = MatMul(r, v)\n s = MatMul(x, u)\n y = Add(m, s)",
}


@pytest.mark.parametrize("form", FORMS)
def test_outputs_have_the_means_of_the_originals(form: str, tmp_path: Path) -> None:
    second, conv = FORMS[form], "conv" in form
    tail, first = (",4,4", "Conv") if conv else ("", "MatMul")
    text = f"(float[N,3{tail}] x) => (float[N,2{tail}] y) {{\n a = {first}(x, w)\n r = Relu(a)\n {second}\n}}"
    kernel = (3, 3) if "padded" in form else (1, 1)
    weights: dict[str, Any] = {"w": (8, 3, 1, 1) if conv else (3, 8)}
    weights["v"] = (2, 8, *kernel) if conv else (8, 2)
    more = {"c": (2,), "u": (3, 2)}
    weights |= {name: shape for name, shape in more.items() if f", {name})" in second}
    source, out, data = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "x.npz"
    onnx.save(build(text, **weights), source)
    x = np.random.default_rng(0).normal(1, 1, (40, 3, *((4, 4) if conv else ()))).astype("f4")
    np.savez(data, x=x)
    options: dict[str, Any] = {"criterion": "magnitude", "round_to": 1, "check_latency": False}
    gaps = {}
    for recover in ("none", "bias"):
        onnxprune.prune(source, out, data=data, recover=recover, **options)
        onnx.checker.check_model(out, full_check=True)
        (a,), (b,) = run(session(source), {"x": x}), run(session(out), {"x": x})
        if form == "a product":
            a, b = (np.log(y / (1 - y)) for y in (a, b))
        axes = (0, 2, 3) if conv else (0,)
        gaps[recover] = float(np.abs((a - b).mean(axes)).max())
    assert gaps["none"] > 0.01
    assert gaps["bias"] < 1e-4


def test_weights_stay_and_accuracy_comes_back(tmp_path: Path) -> None:
    source, out = DIGITS / "digits_resnet.onnx", tmp_path / "out.onnx"
    test = np.load(DIGITS / "digits.npz")
    right = {}
    for recover in ("none", "bias"):
        options: dict[str, Any] = {"criterion": "magnitude", "sparsity": 0.15, "round_to": 1}
        onnxprune.prune(
            source,
            out,
            data=DIGITS / "digits_calib.npz",
            recover=recover,
            check_latency=False,
            **options,
        )
        (logits,) = run(session(out), {"image": test["image"]})
        right[recover] = float((logits.argmax(1) == test["labels"]).mean())
    assert right["bias"] > right["none"]
    before = {t.name: numpy_helper.to_array(t) for t in onnx.load(source).graph.initializer}
    for tensor in onnx.load(out).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.ndim > 1:
            assert np.isin(array, before[tensor.name]).all()


def test_it_needs_samples_and_channels() -> None:
    with pytest.raises(OptionError, match="needs samples"):
        onnxprune.PruneOptions.of(recover="bias")
    with pytest.raises(OptionError, match="granularity channel"):
        onnxprune.PruneOptions.of(recover="bias", granularity="weight", data="x.npz")
