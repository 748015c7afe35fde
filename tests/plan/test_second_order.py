"""What samples tell about channels, and what they are too few for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.dims import DimInfo, trace
from onnxprune.graph import load
from onnxprune.options import PruneOptions
from onnxprune.plan import second_order
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import make_dataset
from onnxprune.runtime.measure import measure
from tests.models import random, write


def notes(folder: Path, samples: int) -> list[str]:
    """Of pruning a hidden layer of 32 units."""
    weights = {"a": random(6, 32), "b": random(32, 3, seed=1)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Tanh", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    model = write(folder / "m.onnx", nodes, weights, {"x": ["n", 6]})
    np.savez(folder / "d.npz", x=random(samples, 6, seed=2))
    report = onnxprune.prune(
        model, folder / "o.onnx", data=folder / "d.npz", sparsity=0.25, check_latency=False
    )
    return [note for note in report.notes if note.startswith("few samples")]


def test_dims_that_no_samples_tell_of_are_told(tmp_path: Path) -> None:
    """One of the two hidden layers is read in a branch alone."""
    text = """
        <ir_version: 10, opset_import: ["": 21]>
        m (float[n,6] x, bool c) => (float[n,3] y) {
            h = MatMul(x, a)
            r = Tanh(h)
            k = MatMul(x, a2)
            t = Tanh(k)
            z = MatMul(t, d)
            u = If(c) <then_branch = p () => (v) { v = MatMul(r, b) }, else_branch = q () => (w) { w = MatMul(r, e) }>
            y = Add(u, z)
        }
    """
    weights = {
        "a": random(6, 16),
        "a2": random(6, 8),
        "b": random(16, 3),
        "d": random(8, 3),
        "e": random(16, 3),
    }
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(numpy_helper.from_array(w, name) for name, w in weights.items())
    onnx.save(proto, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=random(40, 1, 6, seed=2), c=np.ones(40, bool))
    report = onnxprune.prune(
        tmp_path / "m.onnx",
        tmp_path / "o.onnx",
        data=tmp_path / "d.npz",
        sparsity=0.25,
        check_latency=False,
    )
    assert any(note.startswith("1 of 2 Dims are ranked by magnitude") for note in report.notes)


def test_fewer_samples_than_a_layer_has_channels_are_told(tmp_path: Path) -> None:
    (note,) = notes(tmp_path, 12)
    assert note.startswith("few samples: 'b' reads 32 numbers at once and met 12 rows")
    assert "1 of 1 layers" in note


def test_enough_samples_are_not(tmp_path: Path) -> None:
    assert notes(tmp_path, 200) == []


def test_what_was_found_serves_for_some_of_the_dims_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a proof rules some out: nothing is run again, and losses are as if the others had never been free."""
    weights = {"a": random(6, 16), "b": random(16, 12, seed=1), "c": random(12, 3, seed=2)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["k"]),
        helper.make_node("Relu", ["k"], ["s"]),
        helper.make_node("MatMul", ["s", "c"], ["y"]),
    ]
    model = load(write(tmp_path / "m.onnx", nodes, weights, {"x": ["n", 6]}))
    tracing = trace(model, measure(model))
    both = tracing.free()
    fallback = {info.dim: np.ones(info.size) for info in both}
    data = make_dataset({"x": random(200, 6, seed=3)}, model)
    options = PruneOptions(criterion="obs", data=tmp_path / "d.npz")
    walks = 0
    gather = second_order.second_order

    def counted(*args: Any, **kwargs: Any) -> second_order.SecondOrder:
        nonlocal walks
        walks += 1
        return gather(*args, **kwargs)

    monkeypatch.setattr(second_order, "second_order", counted)

    def losses(known: second_order.Calibrations, dims: Sequence[DimInfo]) -> np.ndarray:
        mine = {info.dim: fallback[info.dim] for info in dims}
        found = known(tracing, dims, mine, data, options, Silent())
        consumers = found.consumers(second_order.Pricing(trust=0.0))
        assert set(consumers.left) == set(mine)
        for info in dims:
            consumers.remove(info.dim, np.arange(4))
        return np.concatenate([consumers.losses(info.dim) for info in dims])

    known = second_order.Calibrations()
    losses(known, both)
    assert walks == 1
    for one in both:
        narrowed = losses(known, [one])
        assert walks == 1
        np.testing.assert_allclose(narrowed, losses(second_order.Calibrations(), [one]))
        walks = 1
