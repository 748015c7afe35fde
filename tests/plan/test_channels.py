from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dims import Dim
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import (
    candidates,
    channel_scores,
    choose,
    kept_counts,
    macs_left,
)
from onnxprune.scores import Context, get_criterion
from tests.loaded import traced

MLP = """(float[N,6] x) => (float[N,5] y) {
    a = MatMul(x, w1)
    r = Relu(a)
    b = MatMul(r, w2)
    s = Relu(b)
    y = MatMul(s, w3)
}"""
GROUPED = """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
    a = Conv(x, w1)
    g = Conv<group=4>(a, w2)
    y = Conv(g, w3)
}"""


def options(**more: object) -> PruneOptions:
    return PruneOptions.of(**{"criterion": "magnitude", "round_to": 1, **more})


def blocks_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("channels", "rounding"):
        monkeypatch.setattr(f"onnxprune.plan.{module}.channel_step", lambda: 16)


def counts(text: str, chosen: PruneOptions, **weights: object) -> dict[str, tuple[int, int]]:
    """Kept and all indices by name of the Dim."""
    tracing = traced(text, **weights)
    dims = candidates(tracing, chosen)
    scores = channel_scores(tracing, dims, get_criterion("magnitude"), Context(0))
    kept = kept_counts(dims, scores, chosen)
    return {info.name: (kept[info.dim], info.size) for info in dims}


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        ({"sparsity": 0.5}, 10),
        ({"sparsity": 0.5, "round_to": 4}, 12),
        ({"sparsity": 0.3, "round_to": 4}, 16),
        ({"sparsity": 0.9}, 2),
        ({"sparsity": 0.9, "round_to": 16}, 16),
        ({"sparsity": 0.9, "min_channels": 7}, 7),
        ({"sparsity": 0.0}, 20),
    ],
)
def test_counts_are_shares_rounded_to_multiples(more: dict[str, object], kept: int) -> None:
    assert counts(MLP, options(**more), w1=(6, 20), w2=(20, 9), w3=(9, 5))["w1:1"] == (kept, 20)


@pytest.mark.parametrize(
    ("kernel", "more", "kept"),
    [
        (1, {"round_to": None}, [32, 16]),
        (3, {"round_to": None}, [32, 8]),
        (1, {}, [32, 8]),
        (1, {"round_to": None, "target": "macs=0.5", "scope": "layer"}, [32, 8]),
    ],
)
def test_what_a_pointwise_convolution_sums_over_stays_a_block_wide(
    monkeypatch: pytest.MonkeyPatch, kernel: int, more: dict[str, object], kept: list[int]
) -> None:
    blocks_of_16(monkeypatch)
    found = counts(
        """(float[N,3,4,4] x) => (float[N,5,4,4] y) {
            a = Conv(x, w1)
            b = Conv<auto_pad="SAME_UPPER">(a, w2)
            y = Conv<auto_pad="SAME_UPPER">(b, w3)
        }""",
        options(**more),
        w1=(64, 3, 1, 1),
        w2=(16, 64, kernel, kernel),
        w3=(5, 16, kernel, kernel),
    )
    assert [count for count, _ in found.values()] == kept


def test_where_nothing_else_can_go_less_than_a_block_may_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    blocks_of_16(monkeypatch)
    text = "(float[N,3,4,4] x) => (float[N,5,4,4] y) { a = Conv(x, w1) y = Conv(a, w2) }"
    found = counts(text, options(round_to=None), w1=(16, 3, 1, 1), w2=(5, 16, 1, 1))
    assert [count for count, _ in found.values()] == [8]


def test_global_scope_takes_more_where_less_is_lost() -> None:
    """The first Dim's channels differ much, the second's little."""
    rising, even = np.linspace(0.1, 2, 20, dtype="f4"), np.linspace(0.95, 1.05, 20, dtype="f4")
    found = counts(
        MLP,
        options(sparsity=0.5, scope="global"),
        w1=np.ones((6, 20), "f4") * rising,
        w2=np.ones((20, 20), "f4") * even,
        w3=np.ones((20, 5), "f4"),
    )
    (kept1, _), (kept2, _) = found["w1:1"], found["w2:1"]
    assert kept1 < kept2
    assert kept1 + kept2 == pytest.approx(20, abs=2)


def test_an_axis_of_groups_and_width_is_cut_once() -> None:
    found = counts(GROUPED, options(), w1=(16, 3, 1, 1), w2=(16, 4, 1, 1), w3=(2, 16, 1, 1))
    sizes = sorted(size for _, size in found.values())
    assert sizes in ([4], [4, 4])  # the groups, or the widths before and after
    tracing = traced(GROUPED, w1=(16, 3, 1, 1), w2=(16, 4, 1, 1), w3=(2, 16, 1, 1))
    dims = candidates(tracing, options())
    kept = {info.dim: info.size // 2 for info in dims}
    assert macs_left(tracing, kept) < 0.55 * macs_left(tracing, {})


def test_excluded_dims_are_no_candidates() -> None:
    found = counts(MLP, options(exclude=["w3"]), w1=(6, 20), w2=(20, 9), w3=(9, 5))
    assert set(found) == {"w1:1"}


def test_scores_pool_every_tensor_that_an_index_is_part_of() -> None:
    w1 = np.ones((6, 4), "f4")
    w1[:, 1] = 3
    w2 = np.ones((4, 9), "f4")
    w2[2] = 5
    tracing = traced(MLP, w1=w1, w2=w2, w3=np.ones((9, 5), "f4"))
    dims = candidates(tracing, options())
    scores = channel_scores(tracing, dims, get_criterion("magnitude"), Context(0))
    first = scores[dims[0].dim]
    assert first[0] == first[3] < min(first[1], first[2])


def test_the_most_salient_stay_and_of_equals_the_first() -> None:
    a, b = Dim(4), Dim(3)
    scores = {a: np.array([1.0, 3.0, 1.0, 2.0]), b: np.zeros(3)}
    keep = choose(scores, {a: 3, b: 1})
    assert keep[a].tolist() == [True, True, False, True]
    assert keep[b].tolist() == [True, False, False]
    assert choose(scores, {a: 4, b: 3}) == {}
