from __future__ import annotations

import numpy as np
import pytest
from adjoint import check_op

RANDOM = np.random.default_rng(0)


def signal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("opset", [18, 20])
@pytest.mark.parametrize("length", [None, 6, 11])
@pytest.mark.parametrize(
    ("parts", "inverse", "onesided"), [(1, 0, 0), (2, 0, 0), (2, 1, 0), (1, 0, 1)]
)
def test_dft(opset: int, length: int | None, parts: int, inverse: int, onesided: int) -> None:
    inputs: list[np.ndarray | None] = [signal(2, 8, 3, parts)]
    points = None if length is None else np.array(length)
    attributes = {"inverse": inverse, "onesided": onesided}
    if opset == 18:
        inputs += [] if points is None else [points]
        attributes["axis"] = 1
    else:
        inputs += [points, np.array(1)]
    constants = [k for k in (1, 2) if k < len(inputs) and inputs[k] is not None]
    check_op("DFT", inputs, opset=opset, constants=constants, **attributes)


@pytest.mark.parametrize("opset", [17, 20])
@pytest.mark.parametrize("shape", [(2, 24, 1), (2, 24, 2), (2, 24)])
def test_stft(opset: int, shape: tuple[int, ...]) -> None:
    """Signals without an axis of parts are none by the standard, but onnxruntime runs them and exporters write them."""
    inputs = [signal(*shape), np.array(4), signal(8), np.array(8)]
    onesided = 0 if shape[2:] == (2,) else 1
    check_op("STFT", inputs, opset=opset, constants=[1, 2, 3], onesided=onesided)
