"""Convolutions in the layout that onnxruntime's CPU kernels are fastest in, where onnxruntime cannot bring it about.

The kernels take channels in blocks of b, the width of the vector registers:

    X  N C H W  ->  N C/b H W b
    W  K C h w  ->  K/b C/b h w b_c b_k        W of images, and of groups of one channel:  K/b C h w b_k

onnxruntime rewrites a model so when it loads it, but only convolutions of constant weights. In a training step weights
are inputs, and their convolutions take up to six times as long. So they are written so here, with its own ops: `W` by
Transpose and Gather, which cost little next to a convolution, unless it has many more weights than values.

Layouts and ops are onnxruntime's own affair (`com.microsoft.nchwc`; MLAS, `snchwc.cpp`), so nothing is taken for
granted: the blocks are those with which a convolution gives what it gives without, and where there are none, models
stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import ShapeInferencePass

from onnxprune.autodiff import Ops, Tensor
from onnxprune.autodiff.rewrite import rewrite
from onnxprune.errors import ModelError
from onnxprune.graph import clone
from onnxprune.runtime.providers import resolve
from onnxprune.runtime.sessions import run, session
from onnxprune.train.lift import unused_prefix

__all__ = ["blocked", "fed_session"]

DOMAIN = "com.microsoft.nchwc"
SIZES = (16, 8)
LEAST_FILLED = 2 / 3
"""Share of the products that are none with zeros, where channels do not fill their blocks; what is less than a block
does not count, for convolutions of so few channels are slow without blocks."""
MOST_WEIGHTS = 100
"""Weights of a convolution for each value that it reads or gives a sample, up to which laying them out pays."""


def fed_session(
    model: ir.Model, providers: Sequence[str], threads: int | None = None, *, frugal: bool = False
) -> ort.InferenceSession:
    """A session of a model whose weights are inputs; see `onnxprune.runtime.sessions.session`."""
    on_cpu = resolve(providers)[0][0] == "CPUExecutionProvider"
    return session(blocked(model) if on_cpu else model, providers, threads=threads, frugal=frugal)


def blocked(model: ir.Model) -> ir.Model:
    """A model for the CPU with its two-dimensional convolutions of computed weights in blocks of channels.

    Args:
        model: Left as it is.

    Returns:
        A model that gives the same, to rounding; the same model where nothing is to be gained.
    """
    block = block_size()
    return model if block is None else _rewritten(model, block)


@cache
def block_size() -> int | None:
    """Channels of a block on this machine; None where convolutions in blocks are not to be had."""
    random = np.random.default_rng(0)
    for block in SIZES:
        inputs, outputs = 2 * block - 1, 2 * block - 3  # which do not fill their blocks
        shapes = {"x": (1, inputs, 4, 4), "w": (outputs, inputs, 3, 3)}
        plain = _convolution(shapes)
        feed = {
            name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()
        }
        try:
            (found,) = run(session(_rewritten(plain, block)), feed)
        except ModelError:
            continue
        (expected,) = run(session(plain), feed)
        if np.allclose(found, expected, rtol=1e-4, atol=1e-4):
            return block
    return None


def _convolution(shapes: Mapping[str, tuple[int, ...]]) -> ir.Model:
    """The smallest model in question."""
    float32 = ir.TensorType(ir.DataType.FLOAT)
    inputs = [ir.Value(name=n, type=float32, shape=ir.Shape(s)) for n, s in shapes.items()]
    graph = ir.Graph(inputs, [], nodes=[], opset_imports={"": 18}, name="convolution")
    y = Ops(graph, "made/").Conv(*(Tensor(v, Ops(graph, "x/")) for v in inputs), pads=[1, 1, 1, 1])
    graph.outputs.append(y.value)
    return ir.Model(graph, ir_version=9)


def _rewritten(model: ir.Model, block: int) -> ir.Model:
    copy = clone(model)
    ShapeInferencePass()(copy)
    prefix = unused_prefix(copy.graph, "blocked/")
    if not rewrite(
        copy, prefix, lambda node: _gains(node, block), lambda op, n: [_conv(op, n, block)]
    ):
        return model
    copy.graph.opset_imports[DOMAIN] = 1
    return copy


def _gains(node: ir.Node, block: int) -> bool:
    """Whether a node is a convolution of computed weights that blocks fit, and that is faster in them."""
    if node.op_type != "Conv" or node.domain:
        return False
    x, w = node.inputs[:2]
    known = [_sizes(value) for value in (x, w, node.outputs[0])]
    if x is None or w is None or x.dtype != ir.DataType.FLOAT or any(s is None for s in known):
        return False
    if w.is_initializer() or ir.convenience.get_const_tensor(w) is not None:
        return False  # onnxruntime sees to it
    (_, channels, *_), (outputs, inputs, *kernel), _ = ([*s] for s in known if s is not None)
    group = node.attributes.get_int("group", 1)
    if group == 1:
        filled = math.prod(n / _up(n, block) for n in (channels, outputs) if n > block)
        fits = filled >= LEAST_FILLED
    else:
        fits = outputs % block == 0 and inputs == 1 and group == outputs
    values = sum(math.prod(s[1:]) for s in (known[0], known[2]) if s is not None)
    few = math.prod((outputs, inputs, *kernel)) <= MOST_WEIGHTS * values
    return len(kernel) == 2 and math.prod(kernel) > 1 and fits and few


def _sizes(value: ir.Value | None) -> tuple[int, ...] | None:
    """The shape of a value, with 0 for an axis of samples that is open; None where another axis is."""
    shape = None if value is None else value.shape
    if shape is None or not len(shape):
        return None
    sizes = [dim if isinstance(dim, int) else None for dim in shape]
    first, *others = sizes
    return None if None in others else (first or 0, *(n for n in others if n is not None))


def _up(channels: int, block: int) -> int:
    """The number of channels in whole blocks."""
    return -(-channels // block) * block


def _conv(op: Ops, node: ir.Node, block: int) -> Tensor:
    x, w, *bias = (Tensor(value, op) for value in node.inputs if value is not None)
    real, inputs, *kernel = (size or 0 for size in w.shape)
    outputs, more = _up(real, block), _up(inputs, block) - inputs if inputs > block else 0
    taps, tail = math.prod(kernel), [0] * len(kernel)
    if outputs > real or more:
        w = op.Pad(w, [0, 0, *tail, outputs - real, more, *tail])
        bias = [op.Pad(each, [0, outputs - real]) for each in bias]
        inputs += more
    if more:
        x = op.Pad(x, [0, 0, *tail, 0, more, *tail])
    laid = op.Transpose(op.reshape(w, [-1, block, inputs * taps]), perm=[0, 2, 1])
    if inputs >= block:  # a Transpose alone would take four times as long
        order = np.arange(inputs * taps).reshape(-1, block, taps).swapaxes(1, 2)
        laid = op.Gather(laid, order.ravel(), axis=1)
    laid = op.reshape(laid, [outputs, inputs, *kernel])
    if inputs >= block or node.attributes.get_int("group", 1) > 1:
        (x,) = op.call("ReorderInput", x, domain=DOMAIN)
    attributes = {a.name: a.value for a in node.attributes.values()}
    (y,) = op.call("Conv", x, laid, *bias, domain=DOMAIN, **{"kernel_shape": kernel, **attributes})
    (y,) = op.call("ReorderOutput", y, domain=DOMAIN, channels=real)
    return y
