"""Integer weights: the reals they stand for, and the integer that stands for zero.

    real = scale * (integer - zero_point)

with scale and zero point for the whole tensor, along one axis (per channel), or along one axis for every `block`
neighbours (blocked quantisation). Zeroing a weight writes its zero point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.graph import constant
from onnxprune.scores.criterion import Array

__all__ = ["Quantization"]


@dataclass(frozen=True)
class Quantization:
    """Scale and zero point of an integer tensor.

    Attributes:
        scale: None: 1.
        zero_point: None: 0.
        axis: Axis of the tensor that vectors of scales run along.
        block: Neighbours along `axis` that share a scale; 0: the scale is a scalar or one for each index.
    """

    scale: ir.Value | None
    zero_point: ir.Value | None
    axis: int = 0
    block: int = 0

    @property
    def refusal(self) -> str:
        """Why the integers cannot be read as reals; empty where they can."""
        for role, value in (("scale", self.scale), ("zero point", self.zero_point)):
            if value is not None and _constant(value) is None:
                return f"its {role} {value.name!r} is computed at run time"
        return ""

    def real(self, integers: Array) -> Array:
        """The reals that the integers stand for, float32, the same shape."""
        values = integers.astype(np.float32) - self.zeros(integers).astype(np.float32)
        if self.scale is not None:
            values *= self._fit(self.scale, integers).astype(np.float32)
        return values

    def zeros(self, integers: Array) -> Array:
        """The integers that stand for zero, broadcast to the shape of `integers`, in its type."""
        if self.zero_point is None:
            return np.broadcast_to(np.zeros((), integers.dtype), integers.shape)
        return np.broadcast_to(
            self._fit(self.zero_point, integers).astype(integers.dtype), integers.shape
        )

    def _fit(self, value: ir.Value, integers: Array) -> Array:
        """The scale or zero point as an array that broadcasts against the tensor."""
        tensor = _constant(value)
        assert tensor is not None, "refused before"
        array: np.ndarray[Any, Any] = tensor.numpy()
        if array.size == 1:
            return array.reshape(())
        axis = self.axis % integers.ndim
        if self.block:
            return np.repeat(array, self.block, axis).take(range(integers.shape[axis]), axis)
        if array.ndim > 1:  # one for each index of several axes, as QLinearMatMul allows
            return array
        shape = [1] * integers.ndim
        shape[axis] = array.size
        return array.reshape(shape)


def _constant(value: ir.Value) -> ir.TensorProtocol | None:
    """The constant behind a value, through the Identity nodes by which exporters share tensors."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return constant(value)
