from __future__ import annotations

import pytest

from onnxprune.dims import Tracing
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.plan.rounding import Blocks, blocks_of, step_of
from tests.loaded import traced


def options(**given: object) -> PruneOptions:
    return PruneOptions.of(**{"criterion": "magnitude", "target": "macs=0.5", **given})


def grouped(channels: int, group: int) -> Tracing:
    """A convolution in groups between two others."""
    return traced(
        f"""(float[N,3,4,4] x) => (float[N,5,4,4] y) {{
            a = Conv(x, w1)
            d = Conv<group={group}, pads=[1, 1, 1, 1]>(a, w2)
            y = Conv(d, w3)
        }}""",
        w1=(channels, 3, 1, 1),
        w2=(channels, channels // group, 3, 3),
        w3=(5, channels, 1, 1),
    )


@pytest.mark.parametrize(
    ("channels", "group", "given", "steps"),
    [
        (64, 64, {}, [16]),
        (60, 60, {}, [1]),
        (16, 16, {}, [8]),
        (64, 64, {"round_to": 1}, [1]),
        (64, 1, {}, [1, 1]),
        (64, 1, {"target": "latency=0.5"}, [16, 16]),
        (128, 4, {}, [16, 16]),
        (120, 4, {}, [1, 1]),
    ],
)
def test_convolutions_in_groups_keep_whole_blocks_where_other_widths_are_free(
    monkeypatch: pytest.MonkeyPatch,
    channels: int,
    group: int,
    given: dict[str, object],
    steps: list[int],
) -> None:
    monkeypatch.setattr("onnxprune.plan.rounding.channel_step", lambda: 16)
    chosen = options(**given)
    found = candidates(grouped(channels, group), chosen)
    assert [step_of(info, chosen) for info in found] == steps


@pytest.mark.parametrize(
    ("given", "asked"),
    [({}, {("w2", 0): 16}), ({"round_to": 1}, {}), ({"target": "latency=0.5"}, {})],
)
def test_what_the_kernels_of_the_original_ask_holds_for_what_is_cut_from_it(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, object], asked: dict[tuple[str, int], int]
) -> None:
    monkeypatch.setattr("onnxprune.plan.rounding.channel_step", lambda: 16)
    chosen = options(**given)
    found = blocks_of(candidates(grouped(64, 64), chosen), chosen)
    assert found == asked
    later = candidates(grouped(50, 50), chosen)
    assert list(Blocks(found, last=True).asked(later).values()) == list(asked.values())
