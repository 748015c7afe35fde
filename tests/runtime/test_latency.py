from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import ModelError
from onnxprune.runtime import latency
from onnxprune.runtime.latency import measure, speed
from onnxprune.runtime.sessions import session
from tests.models import linear, random


def test_a_smaller_product_takes_less_time(tmp_path: Path) -> None:
    large = session(linear(tmp_path / "large.onnx", random(512, 4096)), threads=1)
    small = session(linear(tmp_path / "small.onnx", random(512, 256)), threads=1)
    result = speed(large, small, {"x": random(64, 512)}, seconds=0.5)
    assert result.ratio < 0.5
    assert result.ratio_p10 <= result.ratio <= result.ratio_p90
    assert 0 < result.after.median_ms < result.before.median_ms
    assert result.before.p10_ms <= result.before.median_ms <= result.before.p90_ms
    assert json.loads(json.dumps(result.to_dict()))["before"]["runs"] == result.before.runs


def test_time_and_rounds_are_bounded(tmp_path: Path) -> None:
    made = session(linear(tmp_path / "m.onnx", random(4, 4)))
    feed = {"x": random(1, 4)}
    assert measure([made, made], [feed, feed], seconds=30, most=7).shape == (7, 2)
    assert measure([made], [feed], seconds=0, least=4).shape == (4, 1)
    start = time.perf_counter()
    measure([made], [feed], seconds=0.1, most=10**9)
    assert 0.1 <= time.perf_counter() - start < 1


def test_sessions_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(latency, "run", lambda session, feed: order.append(session))
    measure(["a", "b"], [{}, {}], seconds=0, warmup=1, least=3)  # type: ignore[list-item]
    assert "".join(order) == "aabb" + "bbaa" + "aabb" + "bbaa"


def test_long_runs_are_neither_made_twice_nor_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(latency, "run", lambda session, feed: order.append(session))
    monkeypatch.setattr(latency, "LONG", 0.0)
    measure(["a", "b"], [{}, {}], seconds=0, warmup=1, least=2)  # type: ignore[list-item]
    assert "".join(order) == "ab" + "ba"


def test_summary_of_known_times() -> None:
    result = latency.latency(np.arange(1, 102) / 1e3)
    assert (result.p10_ms, result.median_ms, result.p90_ms, result.runs) == (11, 51, 91, 101)


def test_a_model_that_does_not_run(tmp_path: Path) -> None:
    made = session(linear(tmp_path / "m.onnx", random(4, 4)))
    with pytest.raises(ModelError):
        measure([made], [{"x": random(1, 5)}])
