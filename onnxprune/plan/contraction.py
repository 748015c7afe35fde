"""Which tensors are weights of a contraction, and which of their axes is summed over.

Masks (single weights, N:M, blocks) zero elements of weights that are *multiplied and summed*: operands of
convolutions, matrix products and recurrent layers. Biases, norms' gains and shapes stay, and so do embedding tables
that are only looked up: zeros there save nothing. A weight is found from its uses, followed through the layout ops
an exporter puts in between (Transpose, Identity, Cast, Reshape ...), through QuantizeLinear and DequantizeLinear,
into subgraphs and into local functions.

Every operand is seen as a stack of matrices: an output axis, a contraction axis, and the rest (kernel positions, batch
of a MatMul, directions of an LSTM) stacked. So for a convolution N:M runs along the input channels at one kernel
position, which is what TensorRT asks of 2:4 (its developer guide, "Structured sparsity": for each output channel
and each kernel position, of every four input channels at least two are zero); a contraction axis that holds the input
channels of several groups one after the other (ConvTranspose) is divided first, so no set straddles two groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import onnx_ir as ir

from onnxprune.graph import Weight, weights
from onnxprune.plan.layout import LAYOUT, View, node_input
from onnxprune.plan.quantized import Quantization

__all__ = ["Operand", "Skipped", "operands"]

_FLOATS = ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")
_INTEGERS = ("INT8", "UINT8", "INT16", "UINT16", "INT32", "INT4", "UINT4")


@dataclass(frozen=True)
class Axes:
    """Axes of an operand in its own numbering; None where a reshape in between has lost them."""

    output: int | None
    contraction: int | None
    groups: int = 1


@dataclass(frozen=True)
class Operand:
    """One weight with its role.

    Attributes:
        weight: The tensor.
        axes: Its output and contraction axes.
        op: Op types that use it, for the report.
        names: Its name and those of the nodes that use it, what `--exclude` looks at.
        quantization: For integer weights, how to read them.
    """

    weight: Weight
    axes: Axes
    op: str
    names: tuple[str, ...]
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Skipped:
    """A weight of a contraction that masks leave alone, and why."""

    weight: Weight
    reason: str


@dataclass(frozen=True)
class _Use:
    """A contraction that reads the tensor: where, along what axes of the *original* tensor."""

    node: ir.Node
    axes: Axes | None
    quantization: Quantization | None
    refusal: str = ""


# --- the contractions: from node, input index and rank to (output axis, contraction axis, groups) -------------------

_Role = Callable[[ir.Node, int, int], "Axes | str"]
_Key = tuple[str, str]


def _conv(node: ir.Node, _index: int, _rank: int) -> Axes:
    return Axes(0, 1)


def _conv_transpose(node: ir.Node, _index: int, _rank: int) -> Axes:
    return Axes(1, 0, node.attributes.get_int("group", 1))


def _matmul(node: ir.Node, index: int, rank: int) -> Axes:
    if rank == 1:
        return Axes(None, 0)
    left = index == 0
    return Axes(rank - 2, rank - 1) if left else Axes(rank - 1, rank - 2)


def _right_matmul(node: ir.Node, _index: int, rank: int) -> Axes:
    return _matmul(node, 1, rank)


def _gemm(node: ir.Node, index: int, _rank: int) -> Axes:
    if index == 0:
        return Axes(1, 0) if node.attributes.get_int("transA", 0) else Axes(0, 1)
    return Axes(0, 1) if node.attributes.get_int("transB", 0) else Axes(1, 0)


def _fused_matmul(node: ir.Node, index: int, rank: int) -> Axes | str:
    side = "AB"[index]
    if node.attributes.get_int(f"transBatch{side}", 0):
        return "its batch is transposed inside FusedMatMul"
    plain = _matmul(node, index, rank)
    transposed = node.attributes.get_int(f"trans{side}", 0) and rank > 1
    return Axes(plain.contraction, plain.output) if transposed else plain


def _recurrent(node: ir.Node, _index: int, _rank: int) -> Axes:
    return Axes(1, 2)


def _einsum(node: ir.Node, index: int, rank: int) -> Axes:
    """Where one letter is summed over and one stays, as in `bd,de->be`; lost otherwise."""
    terms, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    letters = terms.split(",")[index]
    others = "".join(term for i, term in enumerate(terms.split(",")) if i != index)
    summed = [i for i, c in enumerate(letters) if c not in result and c in others]
    kept = [i for i, c in enumerate(letters) if c in result and c not in others]
    if len(summed) == len(kept) == 1 and len(letters) == rank:
        return Axes(kept[0], summed[0])
    return Axes(None, None)


def _packed(node: ir.Node, _index: int, _rank: int) -> str:
    return f"{node.op_type} stores several weights in a byte"


_ROLES: dict[_Key, dict[int, _Role]] = {
    ("", "Conv"): {1: _conv},
    ("", "ConvInteger"): {1: _conv},
    ("", "QLinearConv"): {3: _conv},
    ("", "ConvTranspose"): {1: _conv_transpose},
    ("", "DeformConv"): {1: _conv},
    ("", "MatMul"): {0: _matmul, 1: _matmul},
    ("", "MatMulInteger"): {0: _matmul, 1: _matmul},
    ("", "QLinearMatMul"): {0: _matmul, 3: _right_matmul},
    ("", "Gemm"): {0: _gemm, 1: _gemm},
    ("", "Einsum"): {0: _einsum, 1: _einsum},
    ("", "LSTM"): {1: _recurrent, 2: _recurrent},
    ("", "GRU"): {1: _recurrent, 2: _recurrent},
    ("", "RNN"): {1: _recurrent, 2: _recurrent},
    ("com.microsoft", "FusedConv"): {1: _conv},
    ("com.microsoft", "NhwcConv"): {1: _packed},
    ("com.microsoft", "FusedMatMul"): {0: _fused_matmul, 1: _fused_matmul},
    ("com.microsoft", "FusedGemm"): {0: _gemm, 1: _gemm},
    ("com.microsoft", "QGemm"): {3: lambda node, _i, rank: _gemm(node, 1, rank)},
    ("com.microsoft", "MatMulIntegerToFloat"): {1: _right_matmul},
    ("com.microsoft", "DynamicQuantizeMatMul"): {1: _right_matmul},
    ("com.microsoft", "Attention"): {1: _right_matmul},
    ("com.microsoft", "QAttention"): {1: _right_matmul},
    ("com.microsoft", "MatMulNBits"): {1: _packed},
    ("com.microsoft", "MatMulBnb4"): {1: _packed},
    ("com.microsoft", "GatherBlockQuantized"): {0: _packed},
}

# Integer operands of ops that have scale and zero point among their inputs: input index -> (scale, zero point).
_SCALES: dict[_Key, dict[int, tuple[int | None, int]]] = {
    ("", "ConvInteger"): {1: (None, 3)},
    ("", "QLinearConv"): {3: (4, 5)},
    ("", "MatMulInteger"): {0: (None, 2), 1: (None, 3)},
    ("", "QLinearMatMul"): {0: (1, 2), 3: (4, 5)},
    ("com.microsoft", "QGemm"): {3: (4, 5)},
    ("com.microsoft", "MatMulIntegerToFloat"): {1: (3, 5)},
    ("com.microsoft", "DynamicQuantizeMatMul"): {1: (2, 3)},
    ("com.microsoft", "QAttention"): {1: (4, 7)},
}


# --- from a weight to its contractions ------------------------------------------------------------------------------


def operands(model: ir.Model) -> tuple[list[Operand], list[Skipped]]:
    """The weights that masks may touch, in graph order, and the contraction weights that they may not.

    Where uses disagree about the axes (a table tied to both an embedding and a MatMul counts once: looking up is no
    contraction) the axes are None: single weights can be zeroed, N:M and blocks not.
    """
    found: list[Operand] = []
    skipped: list[Skipped] = []
    for weight in weights(model):
        if len(weight.shape) == 0 or weight.dtype.name not in (*_FLOATS, *_INTEGERS):
            continue
        uses = list(_uses(model, View(weight.value, tuple(range(len(weight.shape))))))
        if not uses:
            continue
        reason = _refusal(weight, uses)
        if reason:
            skipped.append(Skipped(weight, reason))
        else:
            found.append(_operand(weight, uses))
    return found, skipped


def _refusal(weight: Weight, uses: list[_Use]) -> str:
    for use in uses:
        if use.refusal:
            return use.refusal
    if weight.kind == "constant_of_shape":
        return "all its elements are the same number, made by ConstantOfShape"
    if len({use.quantization for use in uses}) > 1:
        return "its uses read its integers with different scales"
    quantization = uses[0].quantization
    if weight.dtype.name in _FLOATS:
        return ""
    return "it holds integers without a scale" if quantization is None else quantization.refusal


def _operand(weight: Weight, uses: list[_Use]) -> Operand:
    axes = {use.axes for use in uses}
    agreed = axes.pop() if len(axes) == 1 else None
    nodes = list(dict.fromkeys(use.node for use in uses))
    return Operand(
        weight,
        agreed or Axes(None, None),
        ", ".join(dict.fromkeys(node.op_type for node in nodes)),
        (weight.name, *(node.name for node in nodes if node.name)),
        uses[0].quantization,
    )


def _uses(model: ir.Model, view: View) -> Iterator[_Use]:
    """The contractions that read the view, directly or through layout ops; subgraphs are reached by their captures."""
    if id(view.value) in view.seen:
        return
    view = replace(view, seen=view.seen | {id(view.value)})
    for node, index in view.value.uses():
        key = (node.domain, node.op_type)
        role = _ROLES.get(key, {}).get(index)
        if role is not None:
            yield _use(key, node, index, role, view)
        elif key in LAYOUT and (index == 0 or node.op_type == "Concat"):
            for after in LAYOUT[key](node, view):
                yield from _uses(model, after)
        elif node.op_identifier() in model.functions:
            function = model.functions[node.op_identifier()]
            inner = function.inputs[index]
            yield from _uses(model, view.at(inner))


def _use(key: _Key, node: ir.Node, index: int, role: _Role, view: View) -> _Use:
    quantization = view.quantization or _own_scale(key, node, index, view)
    if view.axes is None:
        return _Use(node, None, quantization)
    axes = role(node, index, len(view.axes))
    if isinstance(axes, str):
        return _Use(node, None, quantization, refusal=axes)
    return _Use(
        node,
        Axes(view.origin(axes.output), view.origin(axes.contraction), axes.groups),
        quantization,
    )


def _own_scale(key: _Key, node: ir.Node, index: int, view: View) -> Quantization | None:
    places = _SCALES.get(key, {}).get(index)
    if places is None:
        return None
    scale, zero_point = places
    axis = 0 if "Conv" in key[1] else -1
    origin = view.origin(axis)
    return Quantization(
        node_input(node, scale), node_input(node, zero_point), axis if origin is None else origin
    )
