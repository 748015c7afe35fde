"""Walking through a model."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate import Walk
from onnxprune.graph import load
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import make_dataset
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS


def test_values_are_those_of_the_model_however_little_memory_there_is() -> None:
    model = load(DIGITS / "digits_resnet.onnx")
    data = read_data(DIGITS / "digits_calib.npz", model).take(20)
    (whole,) = run(session(model), data.feed(slice(0, 20)))
    for memory in (0, 30_000, 1 << 30):
        walk = Walk(model, [data], memory=memory)
        for node in model.graph:
            walk.advance(node)
        seen = np.concatenate([batch for (batch,) in walk.values(model.graph.outputs)])
        np.testing.assert_allclose(seen, whole, rtol=1e-4, atol=1e-5)


def test_what_does_not_depend_on_the_samples_is_not_held() -> None:
    model = ir.from_onnx_text(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        g (float[N, 3] x) => (float[N, 3] y)
        <float[3] w = {1, 2, 3}> { v = Exp(w)  a = Mul(x, v)  y = Add(a, v) }
        """
    )
    x = np.ones((9, 3), np.float32)
    walk = Walk(model, [make_dataset({"x": x}, model)])
    last = model.graph[2]
    walk.advance(last)
    assert [value.name for value in walk.alive[0]] == ["a"]
    seen = np.concatenate([batch for (batch,) in walk.values(last.outputs)])
    np.testing.assert_allclose(seen, 2 * np.exp([[1, 2, 3]] * 9), rtol=1e-6)
