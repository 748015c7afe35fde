from __future__ import annotations

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)
REDUCTIONS = [
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSum",
    "ReduceLogSumExp",
    "ReduceSumSquare",
]


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.5, 2, size=shape).astype(np.float32)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [None, [0], [-1, 1], [2, 0]])
@pytest.mark.parametrize("op_type", REDUCTIONS)
def test_reduction(op_type: str, axes: list[int] | None, keepdims: int) -> None:
    inputs = [positive(2, 3, 4)] + ([] if axes is None else [np.array(axes)])
    constants = range(1, len(inputs))
    check_op(op_type, inputs, keepdims=keepdims, constants=constants)


@pytest.mark.parametrize("op_type", ["ReduceSum", "ReduceMean", "ReduceMax"])
def test_axes_as_attributes_of_an_old_opset(op_type: str) -> None:
    check_op(op_type, [positive(2, 3, 4)], opset=11, axes=[1], keepdims=0)


@pytest.mark.parametrize("zeros", [1, 2])
def test_product_with_zeros(zeros: int) -> None:
    x = positive(3, 4)
    x[1, :zeros] = 0
    check_op("ReduceProd", [x, np.array([1])], constants=[1])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_cumulative_sum(exclusive: int, reverse: int) -> None:
    inputs = [positive(3, 4), np.array(1)]
    check_op("CumSum", inputs, constants=[1], exclusive=exclusive, reverse=reverse)


def test_top_k() -> None:
    check_op("TopK", [positive(3, 6), np.array([2])], 2, constants=[1], axis=-1)


@pytest.mark.parametrize("size", [1, 2, 4])
def test_determinant(size: int) -> None:
    check_op("Det", [positive(2, 3, size, size)])
