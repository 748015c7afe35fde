from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import check

from onnxprune.autodiff import gradient

RANDOM = np.random.default_rng(0)

NORMALISED = """
<ir_version: 10, opset_import: ["" : {opset}]>
g (float[2,3,5,5] x, float[4,3,3,3] w, float[4] c, float[4] s, float[4] b, float[4] m, float[4] v)
    => (float[N,4,3,3] y) {{
    a = Conv(x, w, c)
    n = BatchNormalization <epsilon = 0.1> (a, s, b, m, v)
    y = {last}
}}
"""

GELU = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[3,4] x) => (float[3,4] y)
    <float root = {{1.4142135}}, float half = {{0.5}}, float one = {{1.0}}, float inverse = {{0.70710677}}> {{
    u = {scaled}
    e = Erf(u)
    p = Add(e, one)
    {product}
    y = Neg(g)
}}
"""
PRODUCTS = (
    "t = Mul(x, p) g = Mul(t, half)",
    "t = Mul(half, p) g = Mul(x, t)",
    "h = Mul(x, half) g = Mul(h, p)",
)


def ops(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def normalised(last: str = "Relu(n)") -> tuple[ir.Model, dict[str, np.ndarray]]:
    model = ir.from_proto(onnx.parser.parse_model(NORMALISED.format(opset=17, last=last)))
    feeds = {
        v.name or "": RANDOM.uniform(0.5, 1.5, size=list(v.shape or [])).astype(np.float32)
        for v in model.graph.inputs
    }
    feeds["w"] -= 1.0
    return model, feeds


def test_batch_normalization_behind_a_convolution() -> None:
    model, feeds = normalised()
    assert "BatchNormalization" not in ops(gradient(model, "y", list(feeds)))
    check(model, feeds)


@pytest.mark.parametrize("wrt", ["a", "n"])
def test_values_that_are_asked_for_stay(wrt: str) -> None:
    model, feeds = normalised()
    made = gradient(model, "y", [wrt, "w"], feeds=feeds)
    assert "BatchNormalization" in ops(made)
    check(model, feeds, wrt=["w", "s", "m", "v"])


def test_a_value_with_two_readers_stays() -> None:
    model, feeds = normalised("Add(n, a)")
    assert "BatchNormalization" in ops(gradient(model, "y", ["w"]))
    check(model, feeds)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("scaled", ["Div(x, root)", "Mul(x, inverse)"])
def test_gelu(scaled: str, product: str) -> None:
    text = GELU.format(scaled=scaled, product=product)
    model = ir.from_proto(onnx.parser.parse_model(text))
    made = gradient(model, "y", ["x"])
    assert "Gelu" in ops(made)
    assert ops(made).count("Erf") == 1  # of the gradient
    check(model, {"x": RANDOM.normal(size=(3, 4)).astype(np.float32)})


@pytest.mark.parametrize(
    ("scaled", "product"), [("Mul(x, half)", PRODUCTS[0]), ("Div(x, root)", "g = Mul(x, p)")]
)
def test_what_is_no_gelu_stays(scaled: str, product: str) -> None:
    text = GELU.format(scaled=scaled, product=product)
    model = ir.from_proto(onnx.parser.parse_model(text))
    assert "Gelu" not in ops(gradient(model, "y", ["x"]))
    check(model, {"x": RANDOM.normal(size=(3, 4)).astype(np.float32)})


ROWS = """
<ir_version: 10, opset_import: ["" : 17]>
g (float[2,3,4] x) => (float[2,4] y)
    <int64 a = {{0}}, int64 b = {{{second}}}, int64 c = {{-1}}> {{
    p = Gather <axis = 1> (x, c)
    q = Gather <axis = 1> (x, a)
    r = Gather <axis = 1> (x, b)
    s = Mul(p, q)
    t = Exp(r)
    y = Add(s, t)
}}
"""


@pytest.mark.parametrize(("second", "merged"), [(1, True), (2, False)])
def test_rows_that_are_all_read_are_split(second: int, merged: bool) -> None:
    model = ir.from_proto(onnx.parser.parse_model(ROWS.format(second=second)))
    found = ops(gradient(model, "y", ["x"]))
    assert ("Split" in found, "Gather" in found) == (merged, not merged)
    check(model, {"x": RANDOM.normal(size=(2, 3, 4)).astype(np.float32)})
