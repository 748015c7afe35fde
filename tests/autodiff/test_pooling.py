from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


CASES: list[dict[str, Any]] = [
    {},
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 0, 1, 1]},
    {"strides": [2, 2], "ceil_mode": 1},
    {"strides": [2, 2], "ceil_mode": 1, "pads": [0, 1, 1, 0]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER"},
    {"auto_pad": "VALID", "strides": [3, 3]},
]


@pytest.mark.parametrize("attributes", CASES)
@pytest.mark.parametrize("op_type", ["MaxPool", "LpPool", "AveragePool"])
def test_pool(op_type: str, attributes: dict[str, Any]) -> None:
    check_op(
        op_type,
        [normal(2, 3, 8, 9)],
        kernel_shape=[3, 2],
        exact=op_type != "LpPool",  # whose reference is wrong with ceil_mode
        **attributes,
    )


@pytest.mark.parametrize("attributes", CASES)
def test_average_pool_that_counts_padding(attributes: dict[str, Any]) -> None:
    options = {"kernel_shape": [3, 2], "count_include_pad": 1, **attributes}
    check_op("AveragePool", [normal(2, 3, 8, 9)], **options)


@pytest.mark.parametrize("spatial", [1, 3])
@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_pool_of_any_rank(op_type: str, spatial: int) -> None:
    x = normal(2, 2, *[6] * spatial)
    check_op(op_type, [x], kernel_shape=[3] * spatial, strides=[2] * spatial)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool"])
def test_pool_of_any_size(op_type: str) -> None:
    options = {"strides": [2, 2], "pads": [1, 1, 1, 1], "kernel_shape": [3, 3]}
    check_op(op_type, [normal(2, 3, 8, 9)], dynamic=True, **options)


def test_max_pool_with_dilations() -> None:
    check_op("MaxPool", [normal(2, 3, 8, 9)], kernel_shape=[2, 2], dilations=[2, 3])


@pytest.mark.parametrize("op_type", ["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_global_pool(op_type: str, dynamic: bool) -> None:
    check_op(op_type, [normal(2, 3, 4, 5)], dynamic=dynamic)


@pytest.mark.parametrize("given", [["y0"], None])
def test_max_pool_whose_indices_go_column_by_column(given: list[str] | None) -> None:
    options = {"kernel_shape": [3, 2], "strides": [2, 1], "storage_order": 1}
    check_op("MaxPool", [normal(2, 3, 8, 9)], 2, given=given, **options)
