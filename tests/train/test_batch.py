"""Fixed batches, opened."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxprune.runtime.dataset import make_dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train.batch import opened

SHUFFLE = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4, 2, 2] x) => (float[1, 16] y)
<int64[5] split = {1, 2, 2, 2, 2}, int64[4] back = {1, 4, 2, 2}, int64[2] flat = {1, -1}>
{
    a = Reshape(x, split)
    b = Transpose <perm = [0, 2, 1, 3, 4]> (a)
    c = Reshape(b, back)
    y = Reshape(c, flat)
}
"""
ACROSS = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 4] x) => (float[1, 4] y)
{
    m = ReduceMean <keepdims = 1> (x)
    y = Sub(x, m)
}
"""


def model_of(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(text))


def test_reshapes_follow_the_batch() -> None:
    model = model_of(SHUFFLE)
    x = np.random.default_rng(0).normal(size=(6, 4, 2, 2)).astype(np.float32)
    data = make_dataset({"x": x}, model)
    assert data.fixed_batch == 1
    copies, free = opened([model], data)
    assert copies is not None
    assert free.fixed_batch is None
    (together,) = run(session(copies[0]), {"x": x})
    apart = [run(session(model), {"x": x[k : k + 1]})[0] for k in range(6)]
    np.testing.assert_array_equal(together, np.concatenate(apart))
    assert model.graph.inputs[0].shape is not None
    assert model.graph.inputs[0].shape.numpy() == (1, 4, 2, 2)


@pytest.mark.parametrize("texts", [[ACROSS], [ACROSS, ACROSS]])
def test_a_model_that_mixes_samples_stays_as_it_is(texts: list[str]) -> None:
    models = [model_of(text) for text in texts]
    x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    data = make_dataset({"x": x}, models[0])
    copies, same = opened(models, data)
    assert copies is None
    assert same.fixed_batch == 1
