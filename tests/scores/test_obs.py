"""The loss of a removal is that of the least-squares problem without the removed inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from onnxprune.calibrate import Observed, contractions
from onnxprune.calibrate.moments import Sums
from onnxprune.dims import Tracing, trace
from onnxprune.graph import load
from onnxprune.runtime.measure import measure
from onnxprune.scores.obs import Consumer, Consumers, Curve, shrunk
from tests.models import random, write


def two_layers(path: Path, kernel: int = 1) -> Tracing:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "b"], ["y"]),
    ]
    weights = {"a": random(6, 3, 1, 1), "b": random(4, 6, kernel, kernel, seed=1)}
    model = load(write(path, nodes, weights, {"x": (1, 3, 8, 8)}))
    return trace(model, measure(model))


def best_error(x: np.ndarray, y: np.ndarray, kept: np.ndarray) -> float:
    """Mean squared error of the best affine map from some inputs, with the shrinkage that obs puts on all."""
    x, y = x - x.mean(0), y - y.mean(0)
    h = shrunk((x.T @ x / len(x))[None], len(x))[0]
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    w_kept = np.linalg.solve(h[np.ix_(kept, kept)], (h @ w)[kept])
    full = np.zeros_like(w)
    full[kept] = w_kept
    return float(np.sum((w - full) * (h @ (w - full))))


def test_losses_and_removals_are_those_of_least_squares(tmp_path: Path) -> None:
    for kernel in (1, 3):
        tracing = two_layers(tmp_path / f"{kernel}.onnx", kernel)
        each = contractions(tracing)[1]
        (info,) = [i for i in tracing.free() if i.size == 6]
        rng = np.random.default_rng(0)
        k = 6 * kernel**2
        x = rng.standard_normal((4000, k)) @ rng.standard_normal((k, k))
        w = each.matrix(each.view.read())[0]
        sums = Sums(samples=len(x))
        sums.add(x[None], None)
        consumer = Consumer(Observed(each, sums), Curve(), {info.dim})
        left = np.arange(6)
        spent = 0.0
        for _ in range(3):
            losses = consumer.errors(info.dim, left)
            gone = int(np.argmin(losses))
            spent += consumer.remove(info.dim, [left[gone]])
            left = np.delete(left, gone)
            kept = (left[:, None] * kernel**2 + np.arange(kernel**2)).reshape(-1)
            expected = best_error(x, x @ w.T, kept) / consumer.energy
            np.testing.assert_allclose(spent, expected, rtol=1e-5)


def test_of_two_channels_that_say_the_same_one_goes(tmp_path: Path) -> None:
    tracing = two_layers(tmp_path / "model.onnx")
    each = contractions(tracing)[1]
    (info,) = [i for i in tracing.free() if i.size == 6]
    x = np.random.default_rng(0).standard_normal((4000, 6))
    x[:, 4] = x[:, 1]
    sums = Sums(samples=len(x))
    sums.add(x[None], None)
    consumers = Consumers(
        [Consumer(Observed(each, sums), Curve(), {info.dim})], {info.dim: np.zeros(6)}
    )
    together, sum_of_each = consumers.cheapest(info.dim, 2)
    assert set(together) == {1, 4}
    in_turn, loss = consumers.next_to_go(info.dim, 2, 1)
    assert len({1, 4} & set(in_turn)) == 1
    assert len(consumers.left[info.dim]) == 6  # nothing is gone yet
    assert loss > 10 * sum_of_each
    np.testing.assert_allclose(consumers.remove(info.dim, in_turn), loss, rtol=1e-6)
