"""Ops that move numbers without computing: each gradient is moved back."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, no_gradient, vjp

no_gradient("Shape", "Size", "Constant", "ConstantOfShape", "EyeLike", "Range", "RandomNormal")
no_gradient("RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
no_gradient("MelWeightMatrix", "ImageDecoder", "TfIdfVectorizer", "OptionalHasElement")
no_gradient("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit")


@vjp("Reshape", "Flatten", "Squeeze", "Unsqueeze")
def reshape(call: Call, dy: Tensor) -> Gradients:
    """Back to the old shape."""
    return (call.op.reshape_like(dy, call.x), None)[: len(call.inputs)]


@vjp("Transpose")
def transpose(call: Call, dy: Tensor) -> Gradients:
    """The inverse permutation."""
    perm = call.ints("perm", list(range(call.x.rank))[::-1])
    inverse = sorted(range(len(perm)), key=perm.__getitem__)
    return (call.op.transpose(dy, inverse),)


@vjp("Concat")
def concat(call: Call, dy: Tensor) -> Gradients:
    """Split at the seams."""
    op, axis = call.op, call.int("axis") % call.y.rank
    if len(call.inputs) == 1:
        return (dy,)
    sizes = [x.shape[axis] for x in call.inputs]
    if None in sizes:
        lengths = [op.Gather(op.shape_of(x), [axis]) for x in call.inputs]
        return op.call("Split", dy, op.Concat(*lengths, axis=0), outputs=len(sizes), axis=axis)
    return op.call("Split", dy, sizes, outputs=len(sizes), axis=axis)


@vjp("Split")
def split(call: Call, *dys: Tensor | None) -> Gradients:
    """Join, with zeros for the parts that the loss does not see."""
    parts = [
        call.op.zeros_like(y) if dy is None else dy for y, dy in zip(call.outputs, dys, strict=True)
    ]
    return (call.op.Concat(*parts, axis=call.int("axis")), None)[: len(call.inputs)]


@vjp("Slice")
def slice_(call: Call, dy: Tensor) -> Gradients:
    """Pad where the steps are 1 and the bounds are known, else scatter to where it was read."""
    op, x, nones = call.op, call.x, [None] * (len(call.inputs) - 1)
    bounds = _slice_bounds(call)
    if bounds is not None:
        begin, end = bounds
        return op.Pad(dy, [*begin, *end]), *nones
    positions = op.reshape_like(
        op.Range(_int(op, 0), op.size(x, None, ir.DataType.INT64), _int(op, 1)), x
    )
    read = op.Slice(positions, *call.inputs[1:])
    return _scatter_flat(op, x, read, dy, "none"), *nones


def _slice_bounds(call: Call) -> tuple[list[int], list[int]] | None:
    """How much was cut off before and after, along every axis; None where that is not known."""
    known = [None if t is None else t.constant() for t in call.inputs[1:]]
    if any(k is None and t is not None for k, t in zip(known, call.inputs[1:], strict=True)):
        return None
    rank = call.x.rank
    starts, ends = (k.ravel().tolist() for k in known[:2] if k is not None)
    axes = known[2].ravel().tolist() if len(known) > 2 and known[2] is not None else None
    steps = known[3].ravel().tolist() if len(known) > 3 and known[3] is not None else None
    begin, end = [0] * rank, [0] * rank
    for i, axis in enumerate(range(len(starts)) if axes is None else axes):
        size = call.x.shape[axis]
        if size is None or (steps is not None and steps[i] != 1):
            return None
        first, last, _ = slice(starts[i], ends[i]).indices(size)
        begin[axis], end[axis] = first, size - max(last, first)
    return begin, end


def _int(op: Ops, value: int) -> Tensor:
    return op.constant(np.array(value, np.int64))


def _scatter_flat(op: Ops, x: Tensor, positions: Tensor, dy: Tensor, reduction: str) -> Tensor:
    """Zeros in the shape of `x`, and `dy` at the flat positions given."""
    length = op.Unsqueeze(op.size(x, None, ir.DataType.INT64), [0])
    zeros = op.Expand(op.constant(np.zeros(()), dy.dtype), length)
    flat = op.reshape(positions, [-1]), op.reshape(dy, [-1])
    return op.reshape_like(op.ScatterElements(zeros, *flat, axis=0, reduction=reduction), x)


@vjp("Pad")
def pad(call: Call, dy: Tensor) -> Gradients:
    """Cut the frame off; copied borders go back to where they were copied from."""
    op, x, mode = call.op, call.x, call.str("mode", "constant")
    nones = [None] * (len(call.inputs) - 1)
    if mode != "constant":
        positions = op.reshape_like(
            op.Range(_int(op, 0), op.size(x, None, ir.DataType.INT64), _int(op, 1)), x
        )
        read = op.Pad(positions, call.inputs[1], None, call.input(3), mode=mode)
        return _scatter_flat(op, x, read, dy, "add"), *nones
    # a negative pad had cut x, and then its gradient is padded
    dx = op.Pad(dy, op.Neg(call.inputs[1]), None, call.input(3))
    total = None
    if call.input(2) is not None and call.wanted[2]:
        total = op.ReduceSum(dy, keepdims=0) - op.ReduceSum(dx, keepdims=0)
        total = op.reshape_like(total, call.inputs[2])
    return (dx, None, total, None)[: len(call.inputs)]


@vjp("Tile")
def tile(call: Call, dy: Tensor) -> Gradients:
    """Sum over the copies."""
    op, x, repeats = call.op, call.x, call.inputs[1]
    # r1 x s1 x r2 x s2 ..., then the sum over every r
    pairs = op.Concat(op.Unsqueeze(repeats, [1]), op.Unsqueeze(op.shape_of(x), [1]), axis=1)
    split_ = op.Reshape(dy, op.reshape(pairs, [-1]), allowzero=1)
    return op.sum(split_, list(range(0, 2 * x.rank, 2))), None


@vjp("Expand")
def expand(call: Call, dy: Tensor) -> Gradients:
    """The sum over the axes that were stretched."""
    return call.op.unbroadcast(dy, call.y, call.x), None


@vjp("DepthToSpace")
def depth_to_space(call: Call, dy: Tensor) -> Gradients:
    """SpaceToDepth, its channels in the other order for mode CRD."""
    op, block = call.op, call.int("blocksize")
    dx = op.SpaceToDepth(dy, blocksize=block)
    if call.str("mode", "DCR") == "DCR":
        return (dx,)
    channels = call.x.shape[1] or 0
    split_ = op.reshape_before(dx, [-1, block * block, channels // block**2], call.x, 2)
    return (op.reshape_like(op.Transpose(split_, perm=[0, 2, 1, 3, 4]), call.x),)


@vjp("SpaceToDepth")
def space_to_depth(call: Call, dy: Tensor) -> Gradients:
    """DepthToSpace."""
    return (call.op.DepthToSpace(dy, blocksize=call.int("blocksize")),)


@vjp("Trilu")
def trilu(call: Call, dy: Tensor) -> Gradients:
    """The same triangle."""
    return (call.op.Trilu(dy, call.input(1), upper=call.int("upper", 1)), None)[: len(call.inputs)]


@vjp("ReverseSequence")
def reverse_sequence(call: Call, dy: Tensor) -> Gradients:
    """Its own inverse."""
    batch, time = call.int("batch_axis", 1), call.int("time_axis", 0)
    return call.op.ReverseSequence(dy, call.inputs[1], batch_axis=batch, time_axis=time), None


@vjp("OneHot")
def one_hot(call: Call, dy: Tensor) -> Gradients:
    """To the values [off, on]."""
    op, (indices, depth, _) = call.op, call.inputs
    hot = op.one_hot(indices, depth, call.int("axis", -1), dy.dtype)
    on = op.ReduceSum(dy * hot, keepdims=0)
    off = op.ReduceSum(dy, keepdims=0) - on
    return None, None, op.Concat(op.Unsqueeze(off, [0]), op.Unsqueeze(on, [0]), axis=0)
