"""What makes up for channels that went is written where it belongs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from onnxprune.calibrate import contractions
from onnxprune.dims import cut
from onnxprune.recover import compensate
from onnxprune.runtime.shelf import Shelf
from onnxprune.scores.obs import Fitted
from tests.models import named
from tests.scores.test_obs import two_layers


def test_weights_and_biases_are_the_ones_given(tmp_path: Path) -> None:
    tracing = two_layers(tmp_path / "m.onnx")
    _, second = contractions(tracing)
    (info,) = [i for i in tracing.free() if i.size == 6]
    keep = {info.dim: np.array([1, 0, 1, 1, 0, 1], bool)}
    pruned = cut(tracing, keep)
    before = named(pruned, "a").copy()
    fitted = np.random.default_rng(0).normal(size=(1, 4, 4))
    shift = np.arange(4.0)[None]
    compensate(tracing, keep, pruned, {second.node: Fitted(Shelf(0).keep(fitted), shift)})
    np.testing.assert_allclose(named(pruned, "b")[:, :, 0, 0], fitted[0], rtol=1e-6)
    np.testing.assert_array_equal(named(pruned, "a"), before)
    bias = list(pruned.graph)[-1].inputs[2]
    assert bias is not None
    assert bias.const_value is not None
    np.testing.assert_array_equal(bias.const_value.numpy(), shift[0])
