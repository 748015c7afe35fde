"""What all tests share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Towards a target only what is tried on large models: the models here are so small that hundreds of cuts were."""
    monkeypatch.setattr("onnxprune.steps.candidates.EFFORT", 0.0)
    monkeypatch.setattr("onnxprune.steps.candidates.CHEAP", 0.0)
    monkeypatch.setattr("onnxprune.steps.trials.CHEAP", 0.0)


@pytest.fixture(autouse=True)
def _same_numbers(request: pytest.FixtureRequest) -> None:
    """A module's RANDOM starts anew for each test: tests run in any order, and each has the same numbers in all."""
    if isinstance(random := getattr(request.module, "RANDOM", None), np.random.Generator):
        random.bit_generator.state = np.random.default_rng(0).bit_generator.state
