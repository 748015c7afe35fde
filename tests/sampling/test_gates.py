"""Gates open and close wherever a model uses a Dim up, whatever its types and sizes are known to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from tests.dims.exact import build

IN_BRANCHES = """(float[N,6] x, bool c) => (float[N,5] y) {
    a = MatMul(x, w1)
    r = Relu(a)
    y = If (c) <
        then_branch = yes () => (float[N,5] t) { t = MatMul(r, w2) },
        else_branch = no () => (float[N,5] e) { e = MatMul(r, w3) }>
}"""
HALF = "(float16[N,6] x) => (float16[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }"
SCAN = """(float[6,N,4] xs, float[N,8] h0) => (float[N,5] y) {
    hn, hs = Scan<num_scan_inputs = 1, body = step (float[N,8] h, float[N,4] x) => (float[N,8] o, float[N,8] k) {
        a = MatMul(h, w1)
        b = MatMul(x, w2)
        s = Add(a, b)
        o = Tanh(s)
        k = Identity(o)
    }>(h0, xs)
    d = MatMul(hn, w3)
    r = Relu(d)
    y = MatMul(r, w4)
}"""
RANDOM = np.random.default_rng(0)


def normal(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("criterion", ["taylor", "fisher"])
@pytest.mark.parametrize(
    ("text", "weights", "data"),
    [
        (
            IN_BRANCHES,
            {"w1": (6, 16), "w2": (16, 5), "w3": (16, 5)},
            {"x": normal(20, 1, 6), "c": RANDOM.random(20) < 0.5},
        ),
        (
            HALF,
            {"w1": normal(6, 16, dtype="f2"), "w2": normal(16, 5, dtype="f2")},
            {"x": normal(20, 6, dtype="f2")},
        ),
        (
            SCAN,
            {"w1": (8, 8), "w2": (4, 8), "w3": (8, 16), "w4": (16, 5)},
            {"xs": normal(20, 6, 3, 4), "h0": normal(20, 3, 8)},
        ),
    ],
    ids=["in branches", "half precision", "scan"],
)
def test_channels_go_by_gradients(
    text: str, weights: dict, data: dict, criterion: str, tmp_path: Path
) -> None:
    source, samples = tmp_path / "in.onnx", tmp_path / "x.npz"
    onnx.save(build(text, **weights), source)
    np.savez(samples, **data)
    report = onnxprune.prune(
        source,
        tmp_path / "out.onnx",
        data=samples,
        criterion=criterion,
        round_to=1,
        check_latency=False,
    )
    assert report.after.params < report.before.params


@pytest.mark.parametrize("opset", [7, 9, 13, 14, 22])
def test_gates_are_of_ops_that_every_opset_has(opset: int, tmp_path: Path) -> None:
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        opset=opset,
        w1=(6, 16),
        w2=(16, 5),
    )
    onnx.save(model, tmp_path / "in.onnx")
    np.savez(tmp_path / "x.npz", x=normal(20, 6))
    report = onnxprune.prune(
        tmp_path / "in.onnx",
        tmp_path / "out.onnx",
        data=tmp_path / "x.npz",
        criterion="taylor",
        round_to=1,
        check_latency=False,
    )
    assert report.after.params < report.before.params
