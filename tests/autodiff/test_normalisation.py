from __future__ import annotations

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RANDOM.uniform(0.5, 2, size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dynamic", [False, True])
def test_batch_normalization(shape: tuple[int, ...], dynamic: bool) -> None:
    inputs = [normal(*shape), positive(3), normal(3), normal(3), positive(3)]
    constants = [1, 2, 3, 4] if dynamic else []
    wrt = [f"x{i}" for i in range(5)]
    check_op("BatchNormalization", inputs, dynamic=dynamic, constants=constants, wrt=wrt)


def test_batch_normalization_in_training_mode() -> None:
    inputs = [normal(4, 3, 5), positive(3), normal(3), normal(3), positive(3)]
    check_op("BatchNormalization", inputs, 3, training_mode=1, momentum=0.7)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("outputs", [1, 3])
def test_layer_normalization(axis: int, outputs: int) -> None:
    shape = (2, 3, 4)
    inputs = [normal(*shape), positive(*shape[axis:]), normal(*shape[axis:])]
    check_op("LayerNormalization", inputs, outputs, axis=axis)


def test_rms_normalization() -> None:
    check_op("RMSNormalization", [normal(2, 3, 4), positive(4)], opset=23)


def test_instance_normalization() -> None:
    inputs = [normal(2, 3, 4, 5), positive(3), normal(3)]
    check_op("InstanceNormalization", inputs)


@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_normalization(groups: int) -> None:
    inputs = [normal(2, 6, 4, 5), positive(6), normal(6)]
    check_op("GroupNormalization", inputs, opset=21, num_groups=groups, exact=False)


@pytest.mark.parametrize("p", [1, 2])
def test_lp_normalization(p: int) -> None:
    check_op("LpNormalization", [normal(3, 4, 5)], axis=1, p=p)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    attributes = {"size": size, "alpha": 0.3, "beta": 0.6, "bias": 1.2}
    check_op("LRN", [normal(2, 7, 3, 4)], **attributes)


@pytest.mark.parametrize("axis", [-1, 0, 1])
@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_softmax(op_type: str, axis: int) -> None:
    check_op(op_type, [normal(3, 4, 5)], axis=axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_softmax_of_an_old_opset_is_over_all_axes_from_its_own_on(axis: int) -> None:
    check_op("Softmax", [normal(3, 4, 5)], opset=11, axis=axis)
