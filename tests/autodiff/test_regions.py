from __future__ import annotations

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)
BOXES = np.array([[0.7, 1.2, 6.3, 5.1], [-2.3, 2.2, 4.1, 9.4], [2.1, 0.3, 2.9, 8.7]], np.float32)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode: str, coordinates: str, ratio: int) -> None:
    check_op(
        "RoiAlign",
        [normal(2, 3, 7, 8), BOXES, np.array([1, 0, 1])],
        mode=mode,
        coordinate_transformation_mode=coordinates,
        sampling_ratio=ratio,
        output_height=2,
        output_width=3,
        spatial_scale=0.9,
    )


def test_roi_align_of_sizes_that_change() -> None:
    images = normal(1, 2, 6, 6)
    check_op("RoiAlign", [images, 0.9 * BOXES, np.array([0, 0, 0])], dynamic=True, output_height=2)


def test_max_roi_pool() -> None:
    boxes = np.array([[1, 0, 1, 5, 4], [0, 2, 2, 9, 7], [1, 7, 8, 9, 9]], np.float32)
    images = RANDOM.permutation(2 * 3 * 56).reshape(2, 3, 7, 8).astype(np.float32) / 8
    check_op("MaxRoiPool", [images, boxes], constants=[1], pooled_shape=[2, 3], spatial_scale=0.9)
