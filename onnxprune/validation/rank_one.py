"""Proving the cut of a model that is too large to run twice: the same graph, with weights of rank one.

Cutting equals masking for all weights or for none, so any weights will do that tell every index from every other.
Here each large matrix becomes the product of one random vector an axis, multiplied out while the model runs and
forgotten at once. No gigabyte is read, and the proof runs every op of the original.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, Keep, Tracing, keep_mask, leaves, trace
from onnxprune.errors import ValidationError
from onnxprune.graph import Weight
from onnxprune.graph.edit import Edit
from onnxprune.runtime.measure import Measured
from onnxprune.runtime.stand_ins import insert_before_use

__all__ = ["BIG_MODEL", "is_big", "positive", "rank_one"]

BIG_MODEL = 256 << 20
"""Models with more bytes of weights than this are proven with weights of rank one."""
BIG_WEIGHT = 1 << 20


def is_big(tracing: Tracing) -> bool:
    """Whether the weights are too large to run the model as it is."""
    return sum(weight.nbytes for weight in tracing.constants.values()) > BIG_MODEL


def positive(feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Inputs without negative numbers: through positive weights they reach the outputs, whatever the activations."""
    return {
        name: np.abs(array) if array.dtype.kind == "f" else array for name, array in feed.items()
    }


def rank_one(tracing: Tracing, keep: Keep) -> tuple[Tracing, Keep]:
    """The same model with its large weights of rank one, traced, and what is kept of its Dims."""
    edit = Edit(tracing.model)
    made = Measured(inputs=dict(tracing.measured.inputs))
    for attribute in ("shapes", "values", "fixed"):
        known = getattr(tracing.measured, attribute)
        getattr(made, attribute).update(
            {edit.value[value]: what for value, what in known.items() if value in edit.value}
        )
    kept: dict[str, int] = {}
    for use in tracing.uses:
        kept[use.weight.name] = math.prod(int(keep_mask(axis, keep).sum()) for axis in use.axes)
    for weight in edit.weight.values():
        big = weight.nbytes > BIG_WEIGHT and len(weight.shape) > 1
        if big and weight.dtype.is_floating_point():
            _factor(weight, made, kept.get(weight.name, math.prod(weight.shape)))
    other = trace(edit.model, made)
    return other, _translated(tracing, keep, other, edit)


def _factor(weight: Weight, made: Measured, kept: int) -> None:
    """Exchanges a weight for the nodes that multiply its factors, such that `kept` elements pass signals on."""
    graph, shape, value = weight.graph, weight.shape, ir.Value(name=f"{weight.name}/product")
    rng = np.random.default_rng(zlib.crc32(weight.name.encode()))
    dtype, scale = weight.dtype, kept ** (-0.5 / len(shape))
    ir.convenience.replace_all_uses_with(weight.value, value)
    if weight.kind == "initializer":
        graph.initializers.pop(weight.name)
        if weight.value in graph.inputs:
            graph.inputs.remove(weight.value)
    nodes: list[ir.Node] = []
    product: ir.Value | None = None
    for k, n in enumerate(shape):
        # Positive, so that no activation function ends the signal; all different, so that no index is another.
        array = rng.uniform(0.5, 1.5, (1,) * k + (n,) + (1,) * (len(shape) - k - 1)) * scale
        tensor = ir.Tensor(array.astype(dtype.numpy()), dtype=dtype)
        factor = ir.Value(
            name=f"{weight.name}/factor{k}",
            const_value=tensor,
            type=ir.TensorType(dtype),
            shape=ir.Shape(array.shape),
        )
        graph.register_initializer(factor)
        made.shapes[factor] = array.shape
        if product is None:
            product = factor
            continue
        last = k == len(shape) - 1
        output = value if last else ir.Value(name=f"{weight.name}/product{k}")
        nodes.append(ir.Node("", "Mul", [product, factor], outputs=[output]))
        made.shapes[output] = (*shape[: k + 1], *(1,) * (len(shape) - k - 1))
        product = output
    insert_before_use(graph, value, nodes)


def _translated(tracing: Tracing, keep: Keep, other: Tracing, edit: Edit) -> Keep:
    """What is kept, for the Dims of the other tracing: the same graph makes the same axes."""
    found: dict[Dim, np.ndarray] = {}
    for use in tracing.uses:
        twin = None if use.node is None else other.input_axes(edit.node[use.node], use.index)
        for axis, same in zip(use.axes, twin or (), strict=twin is not None):
            mine, theirs = list(leaves(axis)), list(leaves(same))
            if [dim.size for dim in mine] != [dim.size for dim in theirs]:
                raise ValidationError(f"the axes of {use.weight.name!r} could not be proven")
            found.update({b: keep[a] for a, b in zip(mine, theirs, strict=True) if a in keep})
    return found
