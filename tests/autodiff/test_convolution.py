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
    {"pads": [1, 1, 1, 1]},
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"dilations": [2, 2], "pads": [2, 1, 0, 2]},
    {"dilations": [2, 1], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"auto_pad": "SAME_UPPER"},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [2, 3]},
    {"auto_pad": "VALID", "strides": [2, 1]},
    {"pads": [3, 3, 3, 3]},
]


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("attributes", CASES)
def test_conv(attributes: dict[str, Any], group: int) -> None:
    for kernel in ((3, 3), (2, 3)):
        check_op(
            "Conv",
            [normal(2, 4, 8, 9), normal(8, 4 // group, *kernel), normal(8)],
            group=group,
            **attributes,
        )


@pytest.mark.parametrize("spatial", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3])
def test_conv_of_any_rank(spatial: int, stride: int, kernel: int) -> None:
    pads = [kernel // 2] * (2 * spatial)
    inputs = [normal(2, 3, *[7] * spatial), normal(4, 3, *[kernel] * spatial)]
    check_op("Conv", inputs, strides=[stride] * spatial, pads=pads)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_of_a_large_kernel_on_few_channels(stride: int) -> None:
    inputs = [normal(2, 3, 12, 11), normal(5, 3, 7, 7)]
    check_op("Conv", inputs, strides=[stride] * 2, pads=[3] * 4)


@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_of_any_size(stride: int, group: int) -> None:
    inputs = [normal(2, 4, 9, 10), normal(4, 4 // group, 3, 3), normal(4)]
    strides, pads = [stride] * 2, [1] * 4
    options = {"constants": [1, 2], "dynamic": True, "group": group}
    check_op("Conv", inputs, strides=strides, pads=pads, wrt=["x0", "x1", "x2"], **options)


@pytest.mark.parametrize("attributes", CASES)
def test_depthwise_conv(attributes: dict[str, Any]) -> None:
    for kernel in ((3, 3), (2, 3)):
        check_op("Conv", [normal(2, 4, 8, 9), normal(4, 1, *kernel)], group=4, **attributes)


def test_depthwise_conv_of_rows_that_only_padding_meets() -> None:
    inputs = [normal(2, 3, 2, 5), normal(3, 1, 7, 3)]
    check_op("Conv", inputs, group=3, pads=[3, 1, 3, 1])
    check_op("Conv", inputs, group=3, pads=[6, 1, 6, 1], strides=[2, 1])


def test_depthwise_conv_of_a_wide_image() -> None:
    check_op("Conv", [normal(1, 2, 4, 200), normal(2, 1, 3, 3)], group=2, pads=[1] * 4)


@pytest.mark.parametrize(
    ("shape", "dilation"), [((2, 3, 60, 64), 1), ((2, 3, 60, 64), 2), ((1, 64, 30, 32), 1)]
)
def test_conv_of_a_large_image(shape: tuple[int, ...], dilation: int) -> None:
    for kernel in ((3, 3), (2, 1), (1, 1)):
        pads = [dilation * (k // 2) for k in kernel] * 2
        weights = normal(shape[1], shape[1], *kernel)
        check_op("Conv", [normal(*shape), weights], pads=pads, dilations=[dilation] * 2)


TRANSPOSED: list[dict[str, Any]] = [
    {},
    {"strides": [2, 2]},
    {"strides": [2, 3], "pads": [1, 0, 2, 1]},
    {"strides": [3, 2], "output_padding": [2, 1]},
    {"strides": [2, 2], "dilations": [2, 3], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"strides": [3, 3], "output_shape": [17, 18]},
]


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("attributes", TRANSPOSED)
def test_conv_transpose(attributes: dict[str, Any], group: int) -> None:
    inputs = [normal(2, 4, 5, 6), normal(4, 6 // group, 3, 3), normal(6)]
    check_op("ConvTranspose", inputs, group=group, **attributes)


@pytest.mark.parametrize("spatial", [1, 3])
def test_conv_transpose_of_any_rank(spatial: int) -> None:
    inputs = [normal(2, 3, *[4] * spatial), normal(3, 2, *[3] * spatial)]
    check_op("ConvTranspose", inputs, strides=[2] * spatial)
