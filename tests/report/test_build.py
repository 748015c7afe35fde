"""What the report says of a measured latency."""

from __future__ import annotations

import pytest

from onnxprune.options import Target
from onnxprune.report.build import latency_note
from onnxprune.runtime.latency import Latency, Speed
from onnxprune.validation.compare import Comparison


@pytest.mark.parametrize(
    ("target", "ratio", "low", "said"),
    [
        (None, 1.47, 1.36, "slower than the original: a run takes 1.47 times"),
        ("latency", 1.47, 1.36, "slower than the original: a run takes 1.47 times"),
        ("macs", 1.05, 0.9, None),
        (None, 0.7, 0.6, None),
        ("latency", 0.55, 0.5, "0.550 of the time it took, 10.0% more than the 0.5"),
    ],
)
def test_a_result_that_is_slower_or_off_its_target_is_told(
    target: str | None, ratio: float, low: float, said: str | None
) -> None:
    once = Latency(1.0, 1.0, 1.0, 10)
    comparison = Comparison((), None, None, Speed(once, once, ratio, low, 2.0), 1, True, ("cpu",))
    notes = latency_note(None if target is None else Target(target, 0.5), comparison)
    if said is None:
        assert notes == ()
    else:
        assert said in notes[0]
