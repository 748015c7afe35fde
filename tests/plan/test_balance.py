"""Widths at which time follows MACs: what kernels have to do, and the blocks that Dims trade for it."""

from __future__ import annotations

import pytest

from onnxprune.dims import Dim, Tracing
from onnxprune.options import PruneOptions
from onnxprune.plan.balance import FEWEST, balanced
from onnxprune.plan.budget import Cost, Term
from onnxprune.plan.channels import candidates
from onnxprune.plan.effort import ALONE, ELEMENT, effort_cost
from tests.loaded import traced

POINTWISE = """(float[N,16,4,4] x) => (float[N,8,4,4] y) {
    a = Conv(x, w1)
    y = Conv(a, w2)
}"""


@pytest.fixture(autouse=True)
def blocks_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxprune.plan.effort.channel_step", lambda: 16)


@pytest.mark.parametrize(
    ("kept", "writes", "reads"),
    [
        (64, 64, 64),
        (50, 64, 64),
        (48, 48, 48),
        (16, ALONE * 16, 16),
        (10, ALONE * 16, 10),
        (80, 64 + ALONE * 16, 80),
    ],
)
def test_convolutions_work_in_blocks(kept: int, writes: float, reads: int) -> None:
    tracing = traced(POINTWISE, w1=(kept, 16, 1, 1), w2=(8, kept, 1, 1))
    products = 16 * writes + reads * 16 * ALONE
    numbers = 16 + kept + kept + 8
    assert effort_cost(tracing).total({}) == pytest.approx(16 * (products + ELEMENT * numbers))


LARGE, DEEP = Dim(96), Dim(256)
HALF = {LARGE: 48, DEEP: 128}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Tracing:
    """Channels that take much time for their MACs, channels that take little, and 54 of 400 that no width changes."""

    def cost(large: float, deep: float, always: float = 0.0) -> Cost:
        terms = [
            Term(frozenset([dim]), lambda kept, dim=dim, each=each: each * kept.get(dim, dim.size))
            for dim, each in ((LARGE, large), (DEEP, deep))
        ]
        return Cost(terms, always)

    monkeypatch.setattr("onnxprune.plan.balance.macs_cost", lambda _: cost(1, 1.5))
    monkeypatch.setattr("onnxprune.plan.balance.effort_cost", lambda _: cost(2, 0.6, 54))
    return traced(POINTWISE, w1=(16, 16, 1, 1), w2=(8, 16, 1, 1))


def test_what_takes_time_gives_a_block_to_what_takes_macs(network: Tracing) -> None:
    assert balanced(network, HALF, 16, [LARGE, DEEP]) == {LARGE: 32, DEEP: 144}


def test_nothing_is_traded_where_nobody_may_or_has_enough(network: Tracing) -> None:
    assert balanced(network, HALF, 16, []) == HALF
    assert balanced(network, HALF, 16, [DEEP]) == HALF
    assert balanced(network, HALF, 16, [LARGE, DEEP], 33) == HALF
    few = {LARGE: (FEWEST - 1) * 16, DEEP: 128}
    assert balanced(network, few, 16, [LARGE, DEEP]) == few


def test_nothing_is_traded_where_time_follows_macs() -> None:
    tracing = traced(POINTWISE, w1=(128, 16, 1, 1), w2=(8, 128, 1, 1))
    (dim,) = (info.dim for info in candidates(tracing, PruneOptions()))
    assert balanced(tracing, {dim: 64}, 16, [dim]) == {dim: 64}
