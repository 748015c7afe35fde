"""Means over a batch, by parts of it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxprune.errors import ModelError
from onnxprune.runtime.parts import MeanRunner, parts
from onnxprune.runtime.sessions import session

MODEL = """
<ir_version: 8, opset_import: ["" : 18]>
means (float[N, 3] x, float[3] scale) => (float[3] mean, float square) {
    y = Mul(x, scale)
    zero = Constant <value_ints = [0]> ()
    mean = ReduceMean <keepdims = 0> (y, zero)
    z = Mul(y, y)
    square = ReduceMean <keepdims = 0> (z)
}
"""


@pytest.mark.parametrize(
    ("samples", "most"), [(1, 4), (8, 4), (9, 4), (37, 16), (64, 32), (65, 32)]
)
def test_parts_are_few_and_as_equal_as_can_be(samples: int, most: int) -> None:
    found = parts(samples, 0, most)
    sizes = [part.stop - part.start for part in found]
    assert np.concatenate([np.arange(samples)[part] for part in found]).tolist() == list(
        range(samples)
    )
    assert max(sizes) <= most
    assert max(sizes) - min(sizes) <= 1
    assert len(found) == -(-samples // most)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("samples", [1, 12, 13])
def test_the_mean_of_parts_is_that_of_the_whole(samples: int, threads: int) -> None:
    model = ir.from_proto(onnx.parser.parse_model(MODEL))
    made: list[int] = []

    def make(within: int) -> ort.InferenceSession:
        made.append(within)
        return session(model, threads=within)

    runner = MeanRunner(make, threads)
    random = np.random.default_rng(samples)
    scale = np.array([1, 2, 3], np.float32)
    for _ in range(2):
        x = random.normal(size=(samples, 3)).astype(np.float32)
        found = runner.run({"x": x}, parts(samples, 0, 4), _fixed({"scale": scale}))
        np.testing.assert_allclose(found["mean"], (x * scale).mean(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["square"], ((x * scale) ** 2).mean(), rtol=1e-5)
    assert made == [max(threads // min(threads, -(-samples // 4)), 1)]


def test_what_goes_wrong_in_a_part_is_told() -> None:
    runner = MeanRunner(
        lambda threads: session(ir.from_proto(onnx.parser.parse_model(MODEL)), threads=threads)
    )
    with pytest.raises(ModelError, match="scale"):
        runner.run({"x": np.zeros((8, 3), np.float32)}, parts(8, 0, 4))


def _fixed(arrays: dict[str, np.ndarray]) -> dict[str, ort.OrtValue]:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}
