"""Latency as a cost of widths, and the search that corrects it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.dims import Dim, Tracing, trace
from onnxprune.graph import load
from onnxprune.graph.cost import params
from onnxprune.plan import latency, reach
from onnxprune.plan.budget import Cost, Term
from onnxprune.plan.latency import latency_cost
from onnxprune.plan.reach import reach_latency
from onnxprune.plan.widths import shrink_to
from onnxprune.runtime.layer import Layer
from onnxprune.runtime.layer_times import LayerTimes
from onnxprune.runtime.measure import measure
from onnxprune.scores.obs import Consumers
from tests.models import DIGITS

RESNET = DIGITS / "digits_resnet.onnx"


def traced() -> Tracing:
    model = load(RESNET)
    return trace(model, measure(model))


class Linear(LayerTimes):
    """A machine on which a layer takes as long as its weight is large, in steps of `step` outputs."""

    def __init__(self, step: int = 1) -> None:
        super().__init__(("cpu",))
        self.step = step
        self.asked: set[tuple[int, ...]] = set()

    def __call__(self, layer: Layer) -> float:
        weight = layer.operands[1]
        assert weight is not None
        self.asked.add(weight.shape)
        outputs = -(-weight.shape[0] // self.step) * self.step
        return float(np.prod((outputs, *weight.shape[1:])))


@pytest.fixture(autouse=True)
def whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = latency._Whole(10.0, 8.0, {"Relu": 1.0, "QuickGelu": 0.5})
    monkeypatch.setattr(latency._Whole, "of", classmethod(lambda *_: found))


def test_the_whole_is_what_was_measured_and_less_is_less() -> None:
    tracing = traced()
    cost = latency_cost(tracing, Linear(), {})
    assert cost.total({}) == pytest.approx(10)
    assert cost.constant == pytest.approx(0.5)
    kept = {info.dim: info.size // 2 for info in tracing.free()}
    assert 0.5 + 1.5 / 4 < cost.total(kept) < 6
    dim = next(iter(kept))
    assert cost.saved({}, dim, 1) == pytest.approx(cost.total({}) - cost.total({dim: 1}))


def test_between_the_machines_steps_a_straight_line_stands_for_measurements() -> None:
    tracing = traced()
    info = max(tracing.free(), key=lambda each: each.size)
    exact, few = Linear(), Linear()
    every = latency_cost(tracing, exact, {})
    some = latency_cost(tracing, few, {info.dim: 1 if info.size < 16 else 2})
    for n in range(2, info.size, 2):
        assert some.total({info.dim: n}) == pytest.approx(every.total({info.dim: n}))
    assert len(few.asked) < len(exact.asked)


def test_indices_that_save_nothing_go_together_with_those_that_do() -> None:
    dim = Dim(32)
    consumers = Consumers([], {dim: np.arange(32.0)})
    stairs = Cost([Term(frozenset([dim]), lambda kept: -(-kept.get(dim, 32) // 8))])
    assert shrink_to(consumers, stairs, 0.5, {dim: 2}, {dim: 1}) == 0.5
    assert len(consumers.left[dim]) == 16


@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.8])
def test_wrong_predictions_are_corrected(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    machine = Machine(monkeypatch, wrong)
    machine.run(traced(), 0.7, Linear())
    assert 0.7 * 0.95 < machine.measured[-1] <= 0.7 * 1.01
    assert 1 < len(machine.measured) <= reach.MOST


class Machine:
    """Measures what parameters are left, to a power that no prediction knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, power: float) -> None:
        self.measured: list[float] = []
        monkeypatch.setattr(reach, "Stopwatch", self.watch)
        self.power, self.patch = power, monkeypatch

    def watch(self, tracing: Tracing, _providers: object) -> Machine:
        self.whole = params(tracing.model)
        return self

    def ratio(self, model: ir.Model) -> float:
        self.measured.append((params(model) / self.whole) ** self.power)
        return self.measured[-1]

    def run(self, tracing: Tracing, target: float, times: LayerTimes) -> tuple[float, Consumers]:
        dims = [info.dim for info in tracing.free()]
        rng = np.random.default_rng(0)
        consumers = Consumers([], {dim: rng.random(dim.size) for dim in dims})
        self.patch.setattr(reach, "layer_times", lambda _providers: _Open(times))
        ones = dict.fromkeys(dims, 1)
        return reach_latency(tracing, consumers, target, ones, ones, ("cpu",))


class _Open:
    def __init__(self, times: LayerTimes) -> None:
        self.times = times

    def __enter__(self) -> LayerTimes:
        return self.times

    def __exit__(self, *_: object) -> None:
        return None
