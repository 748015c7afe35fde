from __future__ import annotations

import pytest

from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.plan.rounding import step_of
from tests.loaded import traced


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
    tracing = traced(
        f"""(float[N,3,4,4] x) => (float[N,5,4,4] y) {{
            a = Conv(x, w1)
            d = Conv<group={group}, pads=[1, 1, 1, 1]>(a, w2)
            y = Conv(d, w3)
        }}""",
        w1=(channels, 3, 1, 1),
        w2=(channels, channels // group, 3, 3),
        w3=(5, channels, 1, 1),
    )
    chosen = PruneOptions.of(**{"criterion": "magnitude", "target": "macs=0.5", **given})
    assert [step_of(info, chosen) for info in candidates(tracing, chosen)] == steps
