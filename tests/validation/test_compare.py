from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.graph import load
from onnxprune.runtime.dataset import Dataset
from onnxprune.validation.compare import compare
from tests.models import linear, random


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """Two linear models, the second with its last output zeroed."""
    weight = random(4, 3)
    pruned = weight.copy()
    pruned[:, 2] = 0
    return linear(tmp_path / "a.onnx", weight), linear(tmp_path / "b.onnx", pruned)


def test_with_labels(pair: tuple[Path, Path]) -> None:
    x = random(100, 4, seed=4)
    labels = (x @ random(4, 3)).argmax(1)
    result = compare(*pair, Dataset({"x": x}, labels), seconds=0.05, batch=16, threads=1)
    assert result.before is not None
    assert result.after is not None
    assert result.speed is not None
    assert result.before.value == 1
    assert result.drop == pytest.approx(1 - result.after.value)
    assert 0 < result.after.value < 1
    assert (result.samples, result.random) == (100, False)
    plain = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert plain["accuracy_before"]["value"] == 1
    assert plain["latency"]["before"]["runs"] >= 5
    assert plain["providers"] == ["CPUExecutionProvider"]


def test_drift_uses_a_part_and_accuracy_all(pair: tuple[Path, Path]) -> None:
    x = random(100, 4, seed=4)
    data = Dataset({"x": x}, (x @ random(4, 3)).argmax(1))
    result = compare(*pair, data, seconds=0, most=10)
    assert result.samples == 10
    assert result.before is not None
    assert result.before.samples == 100


def test_random_inputs_and_models_in_memory(pair: tuple[Path, Path]) -> None:
    a, b = map(load, pair)
    result = compare(a, b, [{"x": random(2, 4)}, {"x": random(2, 4, seed=1)}], seconds=0)
    assert (result.samples, result.random, result.speed, result.drop) == (2, True, None, None)
    assert 0 < result.relative_error < 1
    assert compare(a, a, [{"x": random(2, 4)}], seconds=0).relative_error == 0


def test_nothing_to_compare_on(pair: tuple[Path, Path]) -> None:
    with pytest.raises(OptionError, match="no inputs"):
        compare(*pair, [])


def test_latency_is_that_of_one_sample(pair: tuple[Path, Path]) -> None:
    seen: list[int] = []
    from onnxprune.validation import compare as module

    def spy(before: object, after: object, feed: dict[str, np.ndarray], seconds: float) -> None:
        seen.append(len(feed["x"]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "speed", spy)
        compare(*pair, Dataset({"x": random(9, 4)}))
    assert seen == [1]


def test_large_models_are_compared_in_pieces(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxprune.runtime import pieces

    x = random(50, 4, seed=4)
    data = Dataset({"x": x}, (x @ random(4, 3)).argmax(1))
    whole = compare(*pair, data, seconds=0)
    monkeypatch.setattr(pieces, "LARGEST_WHOLE", 0)
    result = compare(*pair, data, seconds=1)
    assert result.speed is None
    assert "piece by piece" in result.note
    assert (result.before, result.after) == (whole.before, whole.after)
    assert result.relative_error == pytest.approx(whole.relative_error, rel=1e-5)
    assert result.providers == whole.providers
    assert compare(*pair, [{"x": x}], seconds=1).random
