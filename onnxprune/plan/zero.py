"""Carrying out a WeightPlan: masked weights become zero, everything else stays bit for bit.

`zero` changes a model in place, lazily: each masked tensor is read, masked and forgotten when it is saved.
`check_zeroed` holds a written model against its original, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.errors import OnnxPruneError, ValidationError
from onnxprune.graph import Weight, constant, replace, weights
from onnxprune.plan.contraction import operands
from onnxprune.plan.quantized import Quantization
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.plan.weights import weight_names
from onnxprune.scores.criterion import Array

__all__ = ["check_zeroed", "zero"]


def zero(model: ir.Model, plan: WeightPlan) -> None:
    """Replaces every tensor that the plan masks by a lazy masked one.

    Args:
        model: Changed in place; its masked weights are evaluated when read or saved, and not kept.
        plan: For this model.

    Raises:
        OnnxPruneError: The plan names a tensor that the model has not, or of another shape.
    """
    quantizations = _quantizations(model)
    for name, weight in _planned(model, plan).items():
        replace(weight, _masked(weight, plan.zeroed[name], quantizations.get(weight.value)))


def check_zeroed(before: ir.Model, after: ir.Model, plan: WeightPlan) -> None:
    """Proves that `after` is `before` with the plan's elements zero and nothing else changed.

    Raises:
        ValidationError: It is not; names the tensor.
    """
    quantizations = _quantizations(before)
    names_before, names_after = weight_names(before), weight_names(after)
    results = {names_after[weight.value]: weight for weight in weights(after)}
    for weight in weights(before):
        name = names_before[weight.value]
        result = results.get(name)
        if result is None or result.shape != weight.shape or result.dtype != weight.dtype:
            raise ValidationError(f"the weight {name!r} is not in the result as it was")
        expected = weight.array()
        if name in plan.zeroed:
            quantization = quantizations.get(weight.value)
            expected = _apply(expected, plan.zeroed[name], quantization)
        if not _same_bits(expected, result.array()):
            raise ValidationError(f"the weight {name!r} is not what the plan makes of it")


def _planned(model: ir.Model, plan: WeightPlan) -> Mapping[str, Weight]:
    names = weight_names(model)
    by_name = {names[weight.value]: weight for weight in weights(model)}
    for name, mask in plan.zeroed.items():
        if name not in by_name:
            raise OnnxPruneError(f"the plan is for another model: this one has no weight {name!r}")
        if by_name[name].shape != mask.shape:
            shape = list(by_name[name].shape)
            raise OnnxPruneError(
                f"the plan is for another model: {name!r} is {shape} here, {list(mask.shape)} there"
            )
    return {name: by_name[name] for name in plan.zeroed}


def _quantizations(model: ir.Model) -> dict[ir.Value, Quantization | None]:
    return {operand.weight.value: operand.quantization for operand in operands(model)[0]}


def _masked(weight: Weight, mask: Mask, quantization: Quantization | None) -> ir.LazyTensor:
    tensor = constant(weight.value)
    if tensor is None:
        raise OnnxPruneError(f"{weight.name!r} is made by {weight.kind}, which masks cannot change")
    held = ir.Value(name=weight.name, const_value=tensor)  # what it is now, outside the model
    original = Weight(weight.name, held, "initializer", weight.graph)

    def evaluate() -> ir.TensorProtocol:
        return ir.Tensor(_apply(original.array(), mask, quantization), dtype=original.dtype)

    return ir.LazyTensor(evaluate, dtype=weight.dtype, shape=ir.Shape(weight.shape), cache=False)


def _apply(values: Array, mask: Mask, quantization: Quantization | None) -> Array:
    result = np.array(values)
    where = mask.array()
    result[where] = 0 if quantization is None else quantization.zeros(result)[where]
    return result


def _same_bits(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and np.array_equal(
        np.ascontiguousarray(a).reshape(-1).view(np.uint8),
        np.ascontiguousarray(b).reshape(-1).view(np.uint8),
    )
