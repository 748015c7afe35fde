"""What a closed-form repair is made on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxprune.options import PruneOptions
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.steps.repair import MOST, samples_to_fit


def numbered(count: int) -> Dataset:
    return Dataset({"x": np.arange(count, dtype=np.float32).reshape(-1, 1)})


@pytest.mark.parametrize("count", [50, 3 * MOST])
def test_what_training_holds_aside_is_not_fitted_on(count: int) -> None:
    data = numbered(count)
    options = PruneOptions(data=Path("x.npz"), recover="finetune", seed=3)
    fitted = samples_to_fit(data, options).inputs["x"]
    assert options.train is None
    _, aside = hold_aside(data, 0.1, 3)
    assert not np.isin(fitted, aside.inputs["x"]).any()
    assert len(fitted) == min(count - len(aside), MOST)


def test_without_training_all_samples_are_fitted_on() -> None:
    options = PruneOptions(data=Path("x.npz"), recover="lstsq")
    assert samples_to_fit(numbered(50), options).inputs["x"].size == 50
    assert samples_to_fit(numbered(MOST + 1), options).inputs["x"].size == MOST
