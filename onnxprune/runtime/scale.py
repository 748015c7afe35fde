"""How the images that a model was trained on were scaled, as far as the model tells.

1. It begins with a BatchNormalization: that has their mean and variance.
2. It begins with a convolution W and a BatchNormalization: the means that this has are W times the mean of the images,
   and its variances are those of W times images, which tells their spread.
3. Else from the biases of the first layer: they count beside what images give. Where images of spread 1 alone make them
   look small, the images were much larger: 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.graph import constant

__all__ = ["Scale", "input_scale"]

PIXELS = 64.0
"""Spread of images with values from 0 to 255."""
SMALL = 0.1
"""Biases below this share of what images of spread 1 give say that those were larger."""
MOST_PASSED = 4
"""Nodes passed in search of the first layer."""
PASSED = frozenset(("Transpose", "Identity", "Cast", "Pad"))

Array = np.ndarray


@dataclass(frozen=True)
class Scale:
    """Mean of each channel (or of all, (1,)), spread about it, and how that is known, in words."""

    mean: Array
    spread: float
    why: str


def input_scale(value: ir.Value, images: Array) -> Scale:
    """The scale of an image input.

    Args:
        value: The input.
        images: Some of spread 1, (N, C, H, W), that have the correlations of those that the model reads.
    """
    node = _first(value)
    if node is not None and node.op_type == "BatchNormalization":
        mean, variance = (_array(node, k) for k in (3, 4))
        if mean is not None and variance is not None:
            return Scale(mean, float(np.sqrt(variance.mean())), "by its first normalisation")
    weight = _array(node, 1) if node is not None and node.op_type == "Conv" else None
    if node is None or weight is None or weight.ndim != 4 or weight.shape[1] != images.shape[1]:
        return Scale(np.zeros(1), 1.0, "as is usual")
    response = _response(weight, images)
    after = _only_user(node.outputs[0])
    bias = _array(node, 2)
    if after is not None and after.op_type == "BatchNormalization":
        mean, variance = (_array(after, k) for k in (3, 4))
        if mean is not None and variance is not None:
            offset = mean - (0 if bias is None else bias)
            centre = np.linalg.lstsq(weight.sum((2, 3)), offset, rcond=1e-2)[0]
            spread = float(np.sqrt(np.median(variance / np.maximum(response**2, 1e-12))))
            return Scale(centre, spread, "by its first normalisation")
    if bias is None and after is not None and after.op_type == "Add":
        bias = next((b for k in (0, 1) if (b := _array(after, k)) is not None), None)
    if bias is not None and np.median(np.abs(bias)) < SMALL * np.median(response):
        return Scale(np.zeros(1), PIXELS, "by how small its first biases are")
    return Scale(np.zeros(1), 1.0, "as is usual")


def _first(value: ir.Value) -> ir.Node | None:
    """The first node that computes with an input."""
    for _ in range(MOST_PASSED):
        node = _only_user(value)
        if node is None or node.op_type not in PASSED:
            return node
        value = node.outputs[0]
    return None


def _only_user(value: ir.Value) -> ir.Node | None:
    users = list(dict.fromkeys(node for node, _ in value.uses()))
    return users[0] if len(users) == 1 else None


def _array(node: ir.Node, index: int) -> Array | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    tensor = None if value is None else constant(value)
    if tensor is None or not tensor.dtype.is_floating_point():
        return None
    return np.asarray(tensor.numpy(), np.float64)


def _response(weight: Array, images: Array) -> Array:
    """Standard deviation of what each filter gives on some places of some images."""
    _, channels, height, width = weight.shape
    windows = np.lib.stride_tricks.sliding_window_view(images[:16], (height, width), (2, 3))
    rows = (
        windows[:, :, ::7, ::7].transpose(0, 2, 3, 1, 4, 5).reshape(-1, channels * height * width)
    )
    return np.asarray((rows @ weight.reshape(len(weight), -1).T).std(0))
