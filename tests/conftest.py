"""What all tests share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towards a target only what is tried on large models: the models here are so small that hundreds of cuts were."""
    monkeypatch.setattr("onnxprune.steps.candidates.EFFORT", 0.0)
    monkeypatch.setattr("onnxprune.steps.candidates.CHEAP", 0.0)
    monkeypatch.setattr("onnxprune.steps.trials.CHEAP", 0.0)
