"""Latency as a cost of widths, and the search that corrects it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.dims import Dim, Tracing, cut, trace
from onnxprune.errors import NothingToPruneError
from onnxprune.graph import load
from onnxprune.graph.cost import params
from onnxprune.plan import reach
from onnxprune.plan.budget import Cost, Term
from onnxprune.plan.latency import Whole, latency_cost
from onnxprune.plan.reach import Pace
from onnxprune.plan.widths import shrink_to
from onnxprune.runtime.layer import Layer
from onnxprune.runtime.layer_times import LayerTimes
from onnxprune.runtime.measure import measure
from onnxprune.scores.obs import Consumers
from tests.models import DIGITS

RESNET = DIGITS / "digits_resnet.onnx"
WHOLE = Whole(10.0, 8.0, {"Relu": 1.0, "QuickGelu": 0.5})


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
    monkeypatch.setattr(Whole, "of", classmethod(lambda *_: WHOLE))


def test_the_whole_is_what_was_measured_and_less_is_less() -> None:
    tracing = traced()
    cost = latency_cost(tracing, Linear(), {}, WHOLE)
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
    every = latency_cost(tracing, exact, {}, WHOLE)
    some = latency_cost(tracing, few, {info.dim: 1 if info.size < 16 else 2}, WHOLE)
    for n in range(2, info.size, 2):
        assert some.total({info.dim: n}) == pytest.approx(every.total({info.dim: n}))
    assert len(few.asked) < len(exact.asked)


def test_indices_that_save_nothing_go_together_with_those_that_do() -> None:
    dim = Dim(32)
    consumers = Consumers([], {dim: np.arange(32.0)})
    stairs = Cost([Term(frozenset([dim]), lambda kept: -(-kept.get(dim, 32) // 8))])
    assert shrink_to(consumers, stairs, 0.5, {dim: 2}, {dim: 1}) == 0.5
    assert len(consumers.left[dim]) == 16


def test_a_block_that_is_too_much_waits_for_smaller_ones() -> None:
    large, small = Dim(32), Dim(32)
    consumers = Consumers([], {large: np.zeros(32), small: np.ones(32)})
    terms = [
        Term(frozenset([dim]), lambda kept, dim=dim, each=each: each * kept.get(dim, 32))
        for dim, each in ((large, 3.0), (small, 1.0))
    ]
    eights, ones = {large: 8, small: 8}, {large: 1, small: 1}
    assert shrink_to(consumers, Cost(terms), 0.88, eights, ones) == 1 - 16 / 128
    assert (len(consumers.left[large]), len(consumers.left[small])) == (32, 16)
    assert shrink_to(consumers, Cost(terms), 0.5, eights, ones) <= 0.5


@pytest.mark.parametrize("wrong", [0.7, 1.0, 1.8])
@pytest.mark.parametrize("saves", ["latency", "macs"])
def test_wrong_predictions_are_corrected(
    monkeypatch: pytest.MonkeyPatch, wrong: float, saves: str
) -> None:
    machine = Machine(monkeypatch, wrong)
    machine.run(0.7, saves)
    assert 0.7 * 0.95 < machine.measured[-1] <= 0.7 * 1.01
    assert 1 < len(machine.measured) <= reach.MOST


def test_what_one_search_has_learned_the_next_one_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 1.8)
    machine.run(0.7)
    before = len(machine.measured)
    machine.run(0.7)
    assert len(machine.measured) == before + 1
    assert 0.7 * 0.95 < machine.measured[-1] <= 0.7 * 1.01


def test_a_clock_that_stands_still_is_not_cut_after(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, 0.02)
    with pytest.raises(NothingToPruneError, match="is out of reach: by prediction"):
        machine.run(0.5)
    assert params(cut(machine.tracing, machine.consumers.keep())) > 0.2 * machine.whole


class Machine:
    """Measures what parameters are left, to a power that no prediction knows."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, power: float) -> None:
        self.measured: list[float] = []
        monkeypatch.setattr(reach, "Stopwatch", self.watch)
        monkeypatch.setattr(reach, "layer_times", lambda _providers: nullcontext(Linear()))
        self.power, self.tracing = power, traced()
        self.pace = Pace(self.tracing, ("cpu",))

    def watch(self, model: ir.Model, _inputs: object, _providers: object) -> Machine:
        self.whole = params(model)
        return self

    def ratio(self, model: ir.Model) -> float:
        self.measured.append((params(model) / self.whole) ** self.power)
        return self.measured[-1]

    def run(self, target: float, saves: str = "latency") -> None:
        dims = [info.dim for info in self.tracing.free()]
        rng = np.random.default_rng(0)
        self.consumers = Consumers([], {dim: rng.random(dim.size) for dim in dims})
        ones = dict.fromkeys(dims, 1)
        self.pace.reach(self.consumers, target, ones, ones, saves)
