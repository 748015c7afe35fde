"""A bias is written where it is, and made where there is none."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.calibrate import contractions
from onnxprune.calibrate.biases import bias_of
from onnxprune.dims import trace
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session


def model_of(body: str, **weights: np.ndarray) -> ir.Model:
    """x of 2 features, z of any."""
    text = f'<ir_version: 9, opset_import: ["" : 17]> g (float[N, 2] x) => (float[N, m] z) {{ {body} }}'
    model = ir.from_onnx_text(text)
    values = {v.name: v for node in model.graph for v in node.inputs if v is not None}
    for name, array in weights.items():
        values[name].const_value = ir.tensor(array.astype(np.float32), name=name)
        model.graph.register_initializer(values[name])
    return model


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "body", ["z = Gemm(x, w)", "z = Gemm(x, w, b)", "y = MatMul(x, w) z = Add(y, b)"]
)
def test_what_is_written_is_added_however_often(body: str, width: int) -> None:
    w = np.ones((2, width))
    weights = {"w": w, "b": np.ones(width)} if "b)" in body else {"w": w}
    model = model_of(body, **weights)
    (each,) = contractions(trace(model, measure(model, {"x": (1, 2)})))
    x = np.ones((1, 2), np.float32)
    for values in (np.full(width, 4.0), np.arange(width) - 7.0):
        place = bias_of(each, each.node, width)
        assert place is not None
        place.write(values, model.ir_version)
        (z,) = run(session(model), {"x": x})
        np.testing.assert_allclose(z, (2 + values)[None])


def test_new_values_take_no_name_that_is_taken() -> None:
    body = "p = Abs(x) q = Relu(x) h = MatMul(x, w) z = Mul(h, p)"
    model = model_of(body, w=np.eye(2))
    names = {node.outputs[0].name: node.outputs[0] for node in model.graph}
    names["p"].name, names["q"].name = "h/bias", "h/biased"
    (each,) = contractions(trace(model, measure(model, {"x": (1, 2)})))
    place = bias_of(each, each.node, 2)
    assert place is not None
    place.write(np.array([1.0, 2.0]), model.ir_version)
    (z,) = run(session(model), {"x": np.array([[3, -4]], np.float32)})
    np.testing.assert_allclose(z, [[(3 + 1) * 3, (-4 + 2) * 4]])
