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
from tests.models import DIGITS, random


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
            scale = float(np.abs(one.covariance()).max())
            for found, expected in (
                (many.covariance(), one.covariance()),
                (many.raw().covariance(), one.raw().covariance()),
            ):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
            np.testing.assert_allclose(many.mean(), one.mean(), rtol=0, atol=1e-5 * scale**0.5)


@pytest.mark.parametrize("mean", [0.0, 3.0, 1e3])
def test_moments_are_exact_to_the_variances(mean: float) -> None:
    """Of float32 rows whose means are far larger than what they vary by."""
    x, t = random(2, 900, 5) + np.float32(mean), random(2, 900, 3, seed=1) - np.float32(mean)
    sums = Sums()
    for part in np.array_split(np.arange(900), 7):
        sums.add(x[:, part], t[:, part])
    wide, wide_t = x.astype(np.float64), t.astype(np.float64)
    for group in range(2):
        both = np.cov(wide[group].T, wide_t[group].T, bias=True)
        np.testing.assert_allclose(sums.covariance()[group], both[:5, :5], rtol=0, atol=1e-6)
        np.testing.assert_allclose(sums.cross()[group], both[5:, :5], rtol=0, atol=1e-6)
    np.testing.assert_allclose(sums.variance(), wide_t.var(1), rtol=1e-6)
    np.testing.assert_allclose(sums.mean(), wide.mean(1), rtol=1e-7, atol=1e-7)
    raw, products = sums.raw(), wide.transpose(0, 2, 1) @ wide / 900
    np.testing.assert_allclose(raw.covariance(), products, rtol=1e-6, atol=1e-6)
    crosses = wide_t.transpose(0, 2, 1) @ wide / 900
    np.testing.assert_allclose(raw.cross(), crosses, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(raw.variance(), (wide_t**2).mean(1), rtol=1e-6)
    assert not raw.mean().any()
    assert not raw.mean_t().any()
