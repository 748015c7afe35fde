"""Criteria of activations and of whole channels, on numbers that can be worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.calibrate.activations import input_norms, observe
from onnxprune.calibrate.contraction import contractions
from onnxprune.errors import OptionError
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import Dataset
from onnxprune.scores import get_criterion
from onnxprune.scores.with_activations import distances, entropies
from tests.dims.exact import build
from tests.loaded import traced
from tests.models import DIGITS

CALIBRATION = DIGITS / "digits_calib.npz"
LAYERS = """(float[N,2] x) => (float[N,2] y) {
    a = MatMul(x, w)
    y = MatMul(a, v)
}"""
IDENTITY = np.eye(2, dtype="f4")


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def prune(folder: Path, model: onnx.ModelProto, x: np.ndarray | None, **options: Any) -> Any:
    source, out = folder / "in.onnx", folder / "out.onnx"
    onnx.save(model, source)
    if x is not None:
        np.savez(folder / "x.npz", x=x.astype("f4"))
        options["data"] = folder / "x.npz"
    quick = {"check_latency": False, "round_to": 1, "recover": "none"}
    onnxprune.prune(source, out, **{**quick, **options})
    return weights(out)


def test_activations_are_meaned_over_samples_and_positions() -> None:
    tracing = traced("(float[N,2,2,1] x) => (float[N,1,1,1] y) { y = Conv(x, w) }", w=(1, 2, 2, 1))
    x = np.array([[[[3], [-4]], [[1], [1]]], [[[0], [0]], [[2], [-2]]]], "f4")
    (seen,) = observe(tracing, contractions(tracing), Dataset({"x": x}), Silent())
    np.testing.assert_allclose(seen.magnitude, [7 / 4, 6 / 4])
    np.testing.assert_allclose(seen.norm, np.sqrt([25 / 2, 10 / 2]))
    np.testing.assert_allclose(seen.means, [[-0.5, 1], [0, 0]])
    (norms,) = input_norms([seen]).values()
    np.testing.assert_allclose(norms[0, :, :, 0], np.sqrt([[12.5, 12.5], [5, 5]]), rtol=1e-6)


def test_entropy_counts_bins() -> None:
    samples = np.array([[0, 5, 0], [0, 5, 1], [1, 5, 2], [1, 5, 3]], "f4")
    np.testing.assert_allclose(entropies(samples), [np.log(2), 0, np.log(2)])


def test_distances_to_all_other_filters() -> None:
    rows = np.array([[0, 0], [3, 4], [0, 4]], float)
    np.testing.assert_allclose(distances(rows), [9, 8, 7])


def test_wanda_weighs_by_what_comes_in(tmp_path: Path) -> None:
    model = build(
        "(float[N,2] x) => (float[N,1] y) { y = MatMul(x, w) }", w=np.array([[3], [2]], "f4")
    )
    x = np.array([[1, 2], [1, 2]])
    left = prune(tmp_path, model, x, granularity="weight", criterion="wanda")
    np.testing.assert_array_equal(left["w"], [[0], [2]])


def test_lamp_compares_tensors_under_one_fraction(tmp_path: Path) -> None:
    chosen = get_criterion("lamp").saliency("w", np.array([[3, 1], [-2, 0]], "f4"))
    np.testing.assert_allclose(chosen, [[1, 1 / 14], [4 / 13, 0]], rtol=1e-6)
    model = build(
        LAYERS, w=np.array([[9, 8], [8, 9]], "f4"), v=np.array([[0.9, 0.1], [0.1, 0.8]], "f4")
    )
    left = prune(
        tmp_path, model, None, granularity="weight", criterion="lamp", scope="global", sparsity=0.25
    )
    assert (left["v"] == 0).sum() == 2
    assert (left["w"] == 0).sum() == 0


@pytest.mark.parametrize(("criterion", "stays"), [("activation", 1), ("entropy", 0)])
def test_the_channel_that_carries_less_goes(criterion: str, stays: int, tmp_path: Path) -> None:
    model = build(LAYERS, w=IDENTITY, v=np.array([[1, 2], [3, 4]], "f4"))
    x = np.array([[1, 9], [2, 9], [-3, 9], [4, 9]])
    left = prune(tmp_path, model, x, criterion=criterion)
    np.testing.assert_array_equal(left["w"], IDENTITY[:, [stays]])


def test_the_channel_with_the_smaller_gamma_goes(tmp_path: Path) -> None:
    text = """(float[1,3,4,4] x) => (float[1,2,4,4] y) {
        a = Conv(x, w)
        n = BatchNormalization(a, s, b, b, t)
        y = Conv(n, v)
    }"""
    more: dict[str, Any] = {"b": np.zeros(3, "f4"), "t": np.ones(3, "f4")}
    model = build(text, w=(3, 3, 1, 1), s=np.array([-3, 0.5, 2], "f4"), v=(2, 3, 1, 1), **more)
    left = prune(tmp_path, model, None, criterion="bn-scale", sparsity=1 / 3)
    np.testing.assert_array_equal(left["s"], [-3, 2])
    plain = build(LAYERS, w=IDENTITY, v=(2, 2))
    with pytest.raises(OptionError, match="finds nothing to go by"):
        prune(tmp_path, plain, None, criterion="bn-scale")


def test_the_filter_nearest_to_the_others_goes(tmp_path: Path) -> None:
    w = np.array([[1, 5, 3], [1, 1, 1.1]], "f4")
    left = prune(tmp_path, build(LAYERS, w=w, v=(3, 2)), None, criterion="fpgm", sparsity=1 / 3)
    np.testing.assert_array_equal(left["w"], w[:, :2])


@pytest.mark.parametrize("criterion", ["activation", "entropy", "wanda", "fpgm"])
@pytest.mark.parametrize("model", ["resnet", "vit", "lstm"])
def test_on_trained_networks(criterion: str, model: str, tmp_path: Path) -> None:
    source = DIGITS / f"digits_{model}.onnx"
    out = tmp_path / "out.onnx"
    options: dict[str, Any] = {"criterion": criterion, "sparsity": 0.25, "check_latency": False}
    report = onnxprune.prune(source, out, data=CALIBRATION, recover="none", **options)
    assert report.after is not None
    assert report.after.params < report.before.params
    onnx.checker.check_model(out)


@pytest.mark.parametrize(
    ("criterion", "granularity"),
    [("lamp", "channel"), ("activation", "weight"), ("fpgm", "2:4"), ("bn-scale", "block:4x1")],
)
def test_what_a_criterion_does_not_rank_is_refused(criterion: str, granularity: str) -> None:
    with pytest.raises(OptionError, match="does not go with granularity"):
        onnxprune.PruneOptions.of(criterion=criterion, granularity=granularity, data="x.npz")
