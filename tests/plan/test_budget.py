"""Targets: what they say, what they cost, what they reach."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dims import Dim, Tracing, trace
from onnxprune.errors import OptionError
from onnxprune.graph import load
from onnxprune.options import parse_target
from onnxprune.plan.budget import Cost, Term, bytes_cost, macs_cost, params_cost
from onnxprune.plan.channels import macs_left
from onnxprune.plan.widths import shrink_to, widened
from onnxprune.runtime.measure import measure
from onnxprune.scores.obs import Consumers
from tests.models import DIGITS


def traced(name: str = "digits_resnet.onnx") -> Tracing:
    model = load(DIGITS / name)
    return trace(model, measure(model))


def test_costs_are_those_of_the_model() -> None:
    tracing = traced()
    cost = macs_cost(tracing)
    kept = {info.dim: info.size // 2 + k % 3 for k, info in enumerate(tracing.free())}
    assert cost.total({}) == macs_left(tracing, {})
    assert cost.total(kept) == macs_left(tracing, kept)
    dim = next(iter(kept))
    assert cost.saved(kept, dim, 3) == macs_left(tracing, kept) - macs_left(
        tracing, {**kept, dim: 3}
    )
    assert bytes_cost(tracing).total({}) == 4 * params_cost(tracing).total({})


@pytest.mark.parametrize("text", ["macs", "macs=0", "macs=1.5", "macs=x", "joules=0.5", "=0.5"])
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(OptionError, match="a target is one of"):
        parse_target(text)


@pytest.mark.parametrize("step", [1, 8])
def test_the_target_is_reached_and_not_far_undershot(step: int) -> None:
    tracing = traced()
    dims = [info.dim for info in tracing.free()]
    rng = np.random.default_rng(0)
    consumers = Consumers([], {dim: rng.random(dim.size) for dim in dims})
    cost = macs_cost(tracing)
    left = shrink_to(consumers, cost, 0.6, dict.fromkeys(dims, step), dict.fromkeys(dims, 1))
    keep = consumers.keep()
    counts = {dim: int(mask.sum()) for dim, mask in keep.items()}
    assert left == pytest.approx(macs_left(tracing, counts) / macs_left(tracing, {}))
    assert 0.6 - 0.02 * step < left <= 0.6
    assert all(count % step == 0 for count in counts.values())


def test_where_steps_are_coarse_what_went_last_comes_back() -> None:
    coarse, fine = Dim(4), Dim(10)
    cost = Cost(
        [
            Term(frozenset({coarse}), lambda kept: 20.0 * kept.get(coarse, 4)),
            Term(frozenset({fine}), lambda kept: 2.0 * kept.get(fine, 10)),
        ]
    )
    prices = {coarse: np.array([9.0, 5.0, 9.0, 9.0]), fine: np.linspace(0.1, 0.2, 10)}
    consumers = Consumers([], prices)
    steps, least = {coarse: 1, fine: 1}, {coarse: 1, fine: 4}
    assert shrink_to(consumers, cost, 0.75, steps, least) == 0.68
    assert len(consumers.left[fine]) == 4
    counts = widened(consumers, cost, 0.75, steps)
    assert counts == {coarse: 3, fine: 7}
    assert cost.total(counts) <= 75
    assert [dim for dim, _ in consumers.gone].count(fine) == 6


@pytest.mark.parametrize("portions", [(2, 8), (1,) * 10])  # to 16, then to 8
def test_what_comes_back_keeps_to_the_steps(portions: tuple[int, ...]) -> None:
    dim = Dim(18)
    cost = Cost([Term(frozenset({dim}), lambda kept: float(kept.get(dim, 18)))])
    consumers = Consumers([], {dim: np.arange(18.0)})
    for count in portions:
        consumers.remove(dim, consumers.left[dim][:count])
    assert widened(consumers, cost, 11 / 18, {dim: 8}) == {dim: 8}
    assert widened(consumers, cost, 17 / 18, {dim: 8}) == {dim: 16}
    assert widened(consumers, cost, 11 / 18, {dim: 1}) == {dim: 11}
