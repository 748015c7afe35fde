from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("op_type", "parameters", "attributes"),
    [
        ("Reshape", [[6, -1]], {}),
        ("Reshape", [[0, 4, 3]], {}),
        ("Flatten", [], {"axis": 2}),
        ("Unsqueeze", [[0, 2]], {}),
        ("Transpose", [], {}),
        ("Transpose", [], {"perm": [2, 0, 1]}),
        ("Expand", [[5, 2, 3, 4]], {}),
        ("Tile", [[2, 1, 3]], {}),
        ("Slice", [[1], [9], [1]], {}),
        ("Slice", [[0, -1], [3, -9], [1, 2], [2, -1]], {}),
        ("Slice", [[2], [1], [2]], {}),
        ("Pad", [[1, 0, 2, 0, 3, 1]], {}),
        ("Pad", [[0, -1, 0, 0, 1, -1]], {}),
        ("Pad", [[0, 1, 2, 0, 2, 1]], {"mode": "reflect"}),
        ("Pad", [[0, 1, 2, 0, 2, 1]], {"mode": "edge"}),
        ("Trilu", [], {"upper": 0}),
        ("Gather", [[0, 2, 0]], {"axis": 1}),
        ("Gather", [[[0, 2], [1, 0]]], {"axis": 2}),
        ("Gather", [1], {"axis": 1}),
        ("Gather", [-1], {"axis": 2}),
        ("GatherElements", [[[[0, 2, 0, 1]], [[1, 1, 0, 2]]]], {"axis": 1}),
        ("GatherND", [[[0, 1], [1, 2], [0, 1]]], {}),
        ("GatherND", [[[1], [2]]], {"batch_dims": 1}),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_layout(
    op_type: str, parameters: list[Any], attributes: dict[str, Any], dynamic: bool
) -> None:
    inputs = [normal(2, 3, 4), *(np.array(p, np.int64) for p in parameters)]
    constants = range(1, len(inputs))
    check_op(op_type, inputs, constants=constants, dynamic=dynamic, **attributes)


def test_expand_of_single_elements() -> None:
    check_op("Expand", [normal(3, 1), np.array([2, 1, 4])], constants=[1])


def test_padding_value() -> None:
    check_op("Pad", [normal(2, 3), np.array([1, 0, 0, 2]), normal()], constants=[1])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    check_op("Concat", [normal(2, 3, 4)] * 3, axis=axis)


@pytest.mark.parametrize("given", [None, ["y0"], ["y1"]])
def test_split(given: list[str] | None) -> None:
    check_op("Split", [normal(2, 6), np.array([2, 4])], 2, constants=[1], axis=1, given=given)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    check_op("DepthToSpace", [normal(2, 12, 3, 4)], blocksize=2, mode=mode)


def test_space_to_depth() -> None:
    check_op("SpaceToDepth", [normal(2, 3, 4, 6)], blocksize=2)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_elements(reduction: str) -> None:
    inputs = [normal(3, 4), np.array([[1, 0, 2]]), normal(1, 3)]
    check_op("ScatterElements", inputs, constants=[1], reduction=reduction, axis=0)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_nd(reduction: str) -> None:
    inputs = [normal(4, 5), np.array([[1], [3]]), normal(2, 5)]
    check_op("ScatterND", inputs, constants=[1], reduction=reduction)


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_compress(axis: int | None) -> None:
    inputs = [normal(3, 3), np.array([True, False, True])]
    check_op("Compress", inputs, constants=[1], **({} if axis is None else {"axis": axis}))


RESIZES: list[dict[str, Any]] = [
    {"mode": mode, "coordinate_transformation_mode": transform}
    for mode in ("nearest", "linear", "cubic")
    for transform in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
]


@pytest.mark.parametrize("scale", [2.0, 0.6])
@pytest.mark.parametrize("attributes", RESIZES)
def test_resize(attributes: dict[str, Any], scale: float) -> None:
    scales = np.array([1, 1, scale, scale], np.float32)
    inputs = [normal(2, 3, 5, 6), None, scales]
    check_op("Resize", inputs, constants=[2], **attributes)


def test_resize_to_sizes_of_any_input() -> None:
    inputs = [normal(2, 3, 5, 6), None, None, np.array([2, 3, 9, 7])]
    check_op("Resize", inputs, constants=[3], mode="linear")


def test_upsample_of_an_old_opset() -> None:
    check_op("Upsample", [normal(1, 2, 3, 4)], opset=7, scales=[1.0, 1.0, 2.0, 2.0])


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
def test_grid_sample(mode: str, padding: str, aligned: int) -> None:
    cells = RANDOM.integers(-2, 7, size=(2, 3, 4, 2))
    middle = 0.0 if mode == "nearest" else 0.5  # of where the derivative is the same
    pixels = cells + middle + RANDOM.uniform(-0.3, 0.3, size=cells.shape)
    sizes = np.array([6, 5])
    grid = 2 * pixels / (sizes - 1) - 1 if aligned else (2 * pixels + 1) / sizes - 1
    options = {"mode": mode, "padding_mode": padding, "align_corners": aligned, "opset": 20}
    inputs = [normal(2, 3, 5, 6), grid.astype(np.float32)]
    check_op("GridSample", inputs, **options)


@pytest.mark.parametrize("zeros", [1, 2])
def test_a_product_of_scattered_zeros(zeros: int) -> None:
    updates = normal(2, 4)
    updates[:zeros, 1] = 0
    inputs = [normal(3, 4), np.array([[1, 1, 2, 0], [1, 1, 0, 2]]), updates]
    check_op("ScatterElements", inputs, constants=[1], reduction="mul", axis=0)


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    at = np.array([1, 2] if mode == "linear" else [3, 1])
    inputs = [normal(2, 3, 5, 4), normal(2, 3, 3, 4), at]
    check_op("TensorScatter", inputs, opset=24, constants=[2], mode=mode)
