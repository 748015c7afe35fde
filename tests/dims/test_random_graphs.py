"""The law that everything stands on, on models nobody wrote: cutting equals masking."""

from __future__ import annotations

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.dims.exact import assert_cut_equals_mask
from tests.dims.grow import models

settings.register_profile("grow", deadline=None, suppress_health_check=list(HealthCheck))
GROW = settings.get_profile("grow")
FRACTIONS = st.sampled_from([0.25, 0.5, 0.75])


def shapes(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    dims = model.graph.input[0].type.tensor_type.shape.dim[1:]
    return {"x": (batch, *(d.dim_value for d in dims))}


def check_neutral(model: onnx.ModelProto, sparsity: float) -> None:
    """Where a masked channel is zero everywhere, the first cut must be exact."""
    assert_cut_equals_mask(model, sparsity, [shapes(model, 3)])


def check_any(model: onnx.ModelProto, sparsity: float) -> None:
    """Otherwise Dims may turn out inexact; what is cut in the end must be exact all the same."""
    assert_cut_equals_mask(model, sparsity, [shapes(model, 3)], strict=False)


def check_inexact(model: onnx.ModelProto, sparsity: float) -> None:
    """Dims that a norm or a mean runs over, cut on request: the model must run, on any batch."""
    assert_cut_equals_mask(
        model, sparsity, [shapes(model, 3)], strict=False, exact=False, allow_inexact=True
    )


@settings(GROW, max_examples=25)
@given(models(), FRACTIONS)
def test_cutting_equals_masking(model: onnx.ModelProto, sparsity: float) -> None:
    check_neutral(model, sparsity)


@settings(GROW, max_examples=10)
@given(models(neutral=False), FRACTIONS)
def test_what_is_inexact_is_found(model: onnx.ModelProto, sparsity: float) -> None:
    check_any(model, sparsity)


@settings(GROW, max_examples=10)
@given(models(), FRACTIONS)
def test_cut_on_request_it_runs(model: onnx.ModelProto, sparsity: float) -> None:
    check_inexact(model, sparsity)


@pytest.mark.slow
@settings(GROW, max_examples=3000)
@given(models(steps=20), FRACTIONS)
def test_cutting_equals_masking_in_thousands(model: onnx.ModelProto, sparsity: float) -> None:
    check_neutral(model, sparsity)


@pytest.mark.slow
@settings(GROW, max_examples=1000)
@given(models(steps=20, neutral=False), FRACTIONS)
def test_what_is_inexact_is_found_in_thousands(model: onnx.ModelProto, sparsity: float) -> None:
    check_any(model, sparsity)


@pytest.mark.slow
@settings(GROW, max_examples=1000)
@given(models(steps=20), FRACTIONS)
def test_cut_on_request_they_run_in_thousands(model: onnx.ModelProto, sparsity: float) -> None:
    check_inexact(model, sparsity)
