from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import OnnxPruneError, OptionError
from onnxprune.scores import Context, criterion, criterion_names, get_criterion
from tests.models import random


@pytest.mark.parametrize("name", ["magnitude", "l1"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_magnitude_is_the_absolute_value(name: str, dtype: type) -> None:
    values = random(4, 3, 2).astype(dtype)
    saliency = get_criterion(name).saliency("w", values)
    assert saliency.shape == values.shape
    assert saliency.dtype == (np.float64 if dtype is np.float64 else np.float32)
    np.testing.assert_array_equal(saliency, np.abs(values.astype(saliency.dtype)))


@pytest.mark.parametrize(("name", "order"), [("magnitude", 2), ("l1", 1)])
def test_pooling_is_the_norm_and_adds_up_over_tensors(name: str, order: int) -> None:
    first, second = random(5, 7), random(5, 2, seed=1)
    chosen = get_criterion(name)
    energy = sum(chosen.energy(chosen.saliency("w", part), axes=(1,)) for part in (first, second))
    expected = np.linalg.norm(np.concatenate([first, second], 1).astype(float), order, axis=1)
    np.testing.assert_allclose(chosen.norm(np.asarray(energy)), expected, rtol=1e-6)


def test_random_depends_on_name_and_seed_and_on_nothing_else() -> None:
    values, chosen = random(6, 5), get_criterion("random")
    first = chosen.saliency("a", values, Context(seed=3))
    chosen.saliency("b", values, Context(seed=3))
    np.testing.assert_array_equal(first, chosen.saliency("a", values * 2, Context(seed=3)))
    assert not np.array_equal(first, chosen.saliency("b", values, Context(seed=3)))
    assert not np.array_equal(first, chosen.saliency("a", values, Context(seed=4)))
    assert first.min() >= 0
    assert first.max() < 1


def test_nan_weights_are_an_error_that_names_the_tensor() -> None:
    values = random(3, 3)
    values[1, 1] = np.nan
    with pytest.raises(OnnxPruneError, match=r"'layer\.weight' has NaN"):
        get_criterion("magnitude").saliency("layer.weight", values)


def test_an_unknown_criterion_is_an_option_error_that_lists_the_known() -> None:
    with pytest.raises(OptionError, match="magnitude, l1, random"):
        get_criterion("nonsense")


def test_registering_a_name_twice_is_an_error() -> None:
    with pytest.raises(ValueError, match="twice"):
        criterion("l1", summary="again")(lambda _name, values, _context: values)
    assert {"magnitude", "l1", "random"} <= set(criterion_names())


def test_a_statistic_that_was_not_gathered_is_an_error() -> None:
    context = Context(statistics={"gradient": {"w": np.ones(2)}})
    np.testing.assert_array_equal(context.statistic("gradient", "w"), np.ones(2))
    with pytest.raises(OnnxPruneError, match="no gradient was gathered"):
        context.statistic("gradient", "v")
