"""Which constant tensors of a model are its weights: what a training step may change.

A float constant is a weight by what reads it, not by its name. It is none where any op reads it as

1. a setting: running statistics, scales of quantisation, limits of Clip, exponents, sizes;
2. a single number written out by an exporter (1/sqrt(d), an epsilon), unless an op with parameters of
   its own (Conv, PRelu, ...) reads it as one of them;
3. an additive mask (numbers of 1e4 and more, or infinite);
4. the normalisation of an input (the other operand is an input of the model).

Constants inside If, Loop and Scan stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import Weight, clone, weights
from onnxprune.graph.patterns import is_named

__all__ = ["trainable", "untie"]

_TYPES = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}

_SETTINGS: dict[str, frozenset[int]] = {
    "BatchNormalization": frozenset({3, 4}),
    "Clip": frozenset({1, 2}),
    "DequantizeLinear": frozenset({1, 2}),
    "Dropout": frozenset({1}),
    "Pad": frozenset({2}),
    "Pow": frozenset({1}),
    "QuantizeLinear": frozenset({1, 2}),
    "Resize": frozenset({1, 2}),
    "Upsample": frozenset({1}),
}
_ALL_SETTINGS = {
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "NonMaxSuppression"),
    *("OneHot", "Range", "RoiAlign", "STFT", "DFT", "MelWeightMatrix"),
}
_PARAMETERS = {
    *("BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GroupNormalization", "GRU"),
    *("InstanceNormalization", "LayerNormalization", "LSTM", "MatMul", "PRelu", "RNN"),
    *("RMSNormalization", "SimplifiedLayerNormalization", "SkipLayerNormalization"),
}
_LAYOUT = {
    *("Cast", "Concat", "Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze"),
    *("Tile", "Transpose", "Unsqueeze"),
}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Where", "Max", "Min"}
_MASK = 1e4


def trainable(
    model: ir.Model, include: Sequence[str] = (), exclude: Sequence[str] = ()
) -> list[Weight]:
    """The weights of the main graph that training changes, in graph order.

    Args:
        model: A model without local functions (see `onnxprune.graph.inline`).
        include: Patterns of names; with any, only these float constants are trained, whatever reads them.
        exclude: Patterns of names that are not trained.

    Raises:
        OptionError: A pattern names no float constant.
        NothingToPruneError: Nothing is left to train.
    """
    found = [
        weight
        for weight in weights(model)
        if weight.graph is model.graph and weight.dtype in _TYPES and 0 not in weight.shape
    ]
    for pattern in (*include, *exclude):
        if not any(is_named([weight.name], [pattern]) for weight in found):
            raise OptionError(f"no float constant of the model is named {pattern!r}")
    chosen = [
        weight
        for weight in found
        if not is_named([weight.name], exclude)
        and (is_named([weight.name], include) if include else _is_weight(weight))
    ]
    if not chosen:
        raise NothingToPruneError("nothing to train: the model has no float weights that are left")
    return chosen


def untie(model: ir.Model) -> ir.Model:
    """The model with vectors that exporters have merged because they were equal as tensors of their own again.

    PyTorch writes one of two equal biases as the Identity of the other. Trained as one tensor they would
    get the sum of both gradients, and stay equal. Matrices stay tied: there it is meant (an embedding and
    the projection back).

    Args:
        model: A model without local functions; left as it is.
    """
    merged = [
        (node.name, node.outputs[0].name)
        for node in model.graph
        if node.op_type == "Identity" and not node.domain and _is_vector(node)
    ]
    if not merged:
        return model
    copy = clone(model)
    for node in list(copy.graph):
        if (node.name, node.outputs[0].name) not in merged or node.op_type != "Identity":
            continue
        source, old = node.inputs[0], node.outputs[0]
        assert source is not None
        assert source.const_value is not None
        value = ir.Value(name=old.name, type=source.type, shape=source.shape)
        value.const_value = ir.Tensor(source.const_value.numpy(), name=old.name)
        old.name = None
        ir.convenience.replace_all_uses_with(old, value)
        copy.graph.remove(node, safe=True)
        copy.graph.register_initializer(value)
    return copy


def _is_vector(node: ir.Node) -> bool:
    source, output = node.inputs[0], node.outputs[0]
    return (
        source is not None
        and source.is_initializer()
        and not source.is_graph_input()
        and source.const_value is not None
        and source.const_value.dtype in _TYPES
        and len(source.const_value.shape) == 1
        and not output.is_graph_output()
    )


def _is_weight(weight: Weight) -> bool:
    readers = list(_readers(weight.value))
    single = math.prod(weight.shape) == 1
    return (
        bool(readers)
        and not any(_is_setting(node, index) for node, index in readers)
        and not (single and not all(node.op_type in _PARAMETERS for node, _ in readers))
        and not any(_normalises_input(node, index) for node, index in readers)
        and not (any(node.op_type in _ELEMENTWISE for node, _ in readers) and _is_mask(weight))
    )


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """The ops that compute with a value, past those that only change its layout."""
    for node, index in value.uses():
        if node.op_type in _LAYOUT and (index == 0 or node.op_type == "Concat"):
            for output in node.outputs:
                yield from _readers(output)
        else:
            yield node, index


def _is_setting(node: ir.Node, index: int) -> bool:
    return (
        node.op_type in _ALL_SETTINGS
        or index in _SETTINGS.get(node.op_type, ())
        or node.op_type.startswith(("QLinear", "DynamicQuantize"))
        or node.op_type.endswith("Integer")
    )


def _normalises_input(node: ir.Node, index: int) -> bool:
    if node.op_type not in _ELEMENTWISE:
        return False
    others = [value for k, value in enumerate(node.inputs) if k != index and value is not None]
    for other in others:
        producer = other.producer()
        while producer is not None and producer.op_type in ("Cast", "Identity"):
            assert producer.inputs[0] is not None
            other = producer.inputs[0]
            producer = other.producer()
        if other.is_graph_input() and not other.is_initializer():
            return True
    return False


def _is_mask(weight: Weight) -> bool:
    array = weight.array()
    return not bool(np.all(np.abs(array.astype(np.float64)) < _MASK))
