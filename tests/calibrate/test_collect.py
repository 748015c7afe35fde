"""Moments gathered in a walk."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.calibrate import collect, contractions, walk
from onnxprune.calibrate.moments import Sums
from onnxprune.dims import trace
from onnxprune.graph import load
from onnxprune.progress import Silent
from onnxprune.runtime.data import read_data
from onnxprune.runtime.measure import measure
from tests.models import DIGITS


def moments(name: str, batch: int, monkeypatch: pytest.MonkeyPatch) -> list[Sums]:
    """Of all contractions of a model, gathered in batches of a size."""
    monkeypatch.setattr(walk, "BATCH", batch)
    model = load(DIGITS / name)
    data = read_data(DIGITS / "digits_calib.npz", model).take(60)
    tracing = trace(model, measure(model, data.shapes_of_one))
    return [each.sums for each in collect(tracing, contractions(tracing), data, Silent())]


@pytest.mark.parametrize("name", ["digits_resnet.onnx", "digits_vit.onnx", "digits_lstm.onnx"])
def test_moments_are_the_same_whatever_the_batch_size(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = moments(name, 1, monkeypatch)
    assert alone
    for batch in (7, 60):
        for one, many in zip(alone, moments(name, batch, monkeypatch), strict=True):
            assert (one.count, one.samples) == (many.count, many.samples)
            scale = float(np.abs(one.xx).max())
            np.testing.assert_allclose(many.xx, one.xx, rtol=0, atol=1e-5 * scale)
            np.testing.assert_allclose(many.x, one.x, rtol=0, atol=1e-5 * one.count * scale**0.5)
