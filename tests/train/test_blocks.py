"""Taking models apart: where, and that the parts together are the whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from onnxprune.graph import weights
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train import trainable, untie
from onnxprune.train.blocks import blocks_of, comparable, extract, own_inputs
from tests.loaded import loaded
from tests.train.steps import digits

RESIDUAL = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 4] x) => (float[n, 4] y)
<float[4, 4] a, float[4, 4] b, float[4, 4] c, float[4, 4] d, float[4, 4] e, float[4, 4] f, float[4, 4] h>
{
    p = MatMul(x, a)
    q = Relu(p)
    r = MatMul(q, b)
    s = MatMul(r, c)
    t = Add(s, q)
    u = MatMul(t, d)
    v = MatMul(t, e)
    w = Add(u, v)
    z = MatMul(w, f)
    k = MatMul(z, h)
    y = Add(k, x)
}
"""


def residual() -> ir.Model:
    model = onnx.parser.parse_model(RESIDUAL)
    random = np.random.default_rng(0)
    del model.graph.initializer[:]
    for name in "abcdefh":
        array = random.normal(size=(4, 4)).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return ir.from_proto(model)


def found(model: ir.Model, names: set[str] | None = None) -> list[tuple[str | None, str, str]]:
    numbers = {weight.name: len(weight.shape) for weight in trainable(model)}
    every = {value.name or "" for node in model.graph for value in node.outputs}
    blocks = blocks_of(model, numbers, every if names is None else names)
    return [(b.takes, ",".join(b.gives), "".join(b.weights)) for b in blocks]


def test_a_cut_point_is_passed_by_everything() -> None:
    # q is still read by the Add behind it, t by two nodes: only after their sums is a single value left
    assert found(residual()) == [(None, "t", "abc"), ("t", "w", "de"), ("w", "y", "fh")]


def test_only_values_that_can_be_compared_are_cut_points() -> None:
    assert found(residual(), {"w"}) == [(None, "w", "abcde"), ("w", "y", "fh")]
    assert found(residual(), set()) == [(None, "y", "abcdefh")]


@pytest.mark.parametrize("name", ["resnet", "vit", "lstm"])
def test_the_blocks_one_after_the_other_are_the_model(name: str) -> None:
    model, data = digits(name)
    model = own_inputs(untie(model))
    numbers = {weight.name: len(weight.shape) for weight in trainable(model)}
    blocks = blocks_of(model, numbers, comparable(model, model, data, {}))
    assert len(blocks) >= 2
    assert {each for block in blocks for each in block.weights} == set(numbers)
    feed = data.feed(slice(0, 3))
    values = dict(feed)
    for block in blocks:
        part = extract(model, block.takes, block.gives, values)
        taken = {value.name or "": values[value.name or ""] for value in part.graph.inputs}
        assert {weight.name for weight in weights(part)} >= set(block.weights)
        values = {**feed, **dict(zip(block.gives, run(session(part), taken), strict=True))}
    for value, expected in zip(model.graph.outputs, run(session(model), feed), strict=True):
        np.testing.assert_allclose(values[value.name or ""], expected, rtol=1e-4, atol=1e-4)


def test_values_that_lost_places_are_compared_where_some_are_left() -> None:
    model, data = residual(), Dataset({"x": np.zeros((2, 4), np.float32)})
    assert comparable(model, model, data, {})["t"] == 16
    lost = {"t": (np.arange(1), np.arange(3)), "z": (np.arange(1), np.arange(4))}
    names = comparable(model, model, data, lost)
    assert "t" not in names  # told to have three places, it has four
    assert names["z"] == 16


def test_a_state_of_one_direction_is_not_one_of_one_sample() -> None:
    """The last hidden state of an LSTM is (directions, samples, hidden): with one sample it looks like a sample's."""
    model = loaded(
        """(float[N,T,6] x) => (float[N,5] y) {
            t = Transpose<perm=[1,0,2]>(x)
            all, last = LSTM<hidden_size=4>(t, w, r)
            s = Squeeze(last, first)
            y = MatMul(s, v)
        }""",
        w=(1, 16, 6),
        r=(1, 16, 4),
        v=(4, 5),
        first=np.array([0]),
    )
    found = comparable(model, model, Dataset({"x": np.zeros((3, 7, 6), np.float32)}), {})
    assert "last" not in found
    assert "s" in found
