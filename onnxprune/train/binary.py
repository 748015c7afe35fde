"""Cross-entropy of yes and no, for models with a single score a sample.

With scores z and labels y in {0, 1}, over N scores:

    L = 1/N sum log(1 + exp(z)) - z y        dL/dz = (sigmoid(z) - y) / N

Where the score comes out of a Sigmoid, z is what enters it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from onnxprune.autodiff import NoGradientError, Ops, Tensor

__all__ = ["BinaryCrossEntropy"]


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """A loss as `onnxprune.autodiff.Loss` describes.

    Attributes:
        output: Name of the output, scores or probabilities.
        labels: Name of the input to add, int64 in the output's shape.
    """

    output: str
    labels: str

    def build(
        self, op: Ops, values: Mapping[str, Tensor]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """See `onnxprune.autodiff.Loss`."""
        if self.output not in values:
            raise NoGradientError(
                f"the loss starts from {self.output!r}, which the model does not have"
            )
        z = values[self.output]
        node = z.value.producer()
        if node is not None and node.op_type == "Sigmoid" and node.inputs[0] is not None:
            z = Tensor(node.inputs[0], op)
        labels = ir.Value(
            name=self.labels, type=ir.TensorType(ir.DataType.INT64), shape=z.value.shape
        )
        op.graph.inputs.append(labels)
        y = op.cast(Tensor(labels, op), z.dtype)
        scale = 1.0 / op.size(z, None, z.dtype)
        loss = op.ReduceSum(op.Softplus(z) - z * y, keepdims=0) * scale
        return loss, [(z, (op.Sigmoid(z) - y) * scale)]
