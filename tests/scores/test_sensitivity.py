"""What errors are worth, measured by damaging one weight after the other."""

from __future__ import annotations

import numpy as np

from onnxprune.calibrate import collect, contractions
from onnxprune.dims import Tracing
from onnxprune.graph import weights
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import Dataset
from onnxprune.scores.obs import Consumer, Curve
from onnxprune.scores.sensitivity import sensitivities
from tests.loaded import traced

RANDOM = np.random.default_rng(0)


def network(last: float) -> tuple[Tracing, list[Consumer], Dataset]:
    """Two layers that sum over Dims, of which the second gives a share of the output."""
    tracing = traced(
        """
        (float[N,6] x) => (float[N,4] y) {
            a = MatMul (x, w1)
            b = Tanh (a)
            c = MatMul (b, w2)
            d = Tanh (c)
            e = MatMul (d, w3)
            f = MatMul (b, w4)
            y = Add (e, f)
        }""",
        w1=RANDOM.standard_normal((6, 16)).astype(np.float32),
        w2=RANDOM.standard_normal((16, 12)).astype(np.float32),
        w3=(last * RANDOM.standard_normal((12, 4))).astype(np.float32),
        w4=RANDOM.standard_normal((16, 4)).astype(np.float32),
    )
    data = Dataset({"x": RANDOM.standard_normal((64, 6)).astype(np.float32)})
    dims = [info.dim for info in tracing.dims if info.dim.frozen is None]
    seen = collect(tracing, contractions(tracing), data, Silent())
    every = [Consumer(each, Curve(), dims) for each in seen]
    return tracing, [each for each in every if each.columns], data


def test_an_error_counts_by_what_it_does_to_the_outputs() -> None:
    tracing, consumers, data = network(last=0.01)
    curves = sensitivities(tracing, consumers, data, Silent())
    by_name = {each.view.source.name: curve for each, curve in curves.items()}
    assert set(by_name) == {"w2", "w3", "w4"}
    assert by_name["w4"](0.5) > 100 * by_name["w3"](0.5)
    for curve in curves.values():
        assert all(np.diff(curve.errors) > 0)
        assert all(np.diff(curve.losses) > 0)


def test_every_weight_has_its_own_tensor_again() -> None:
    """And not a copy in memory of what is still in a file."""
    tracing, consumers, data = network(last=1.0)
    before = {weight.name: weight.value.const_value for weight in weights(tracing.model)}
    sensitivities(tracing, consumers, data, Silent())
    for weight in weights(tracing.model):
        assert weight.value.const_value is before[weight.name]
