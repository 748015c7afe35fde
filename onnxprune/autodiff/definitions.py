"""Ops, and forms of ops, written out in simpler ones where ONNX gives them no function.

A rule for each would repeat those of what they are made of. So they are replaced, and differentiated as
what they become:

    recurrent nodes     with peepholes, clip, coupled gates or other activations: step by step, if the
                        number of steps is static
    STFT                frames, times the window, DFT
    DeformConv          GridSample where the offsets say, times the mask, MatMul

The values and their types are known (`shapes.py`) when this runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, NoGradientError
from onnxprune.autodiff.rewrite import rewrite

__all__ = ["write_out"]

Definition = Callable[[Call], Sequence[Tensor]]
"""Writes what a node computes; one tensor an output."""

_DEFINITIONS: dict[str, tuple[Callable[[ir.Node], bool], Definition]] = {}


def write_out(model: ir.Model, prefix: str) -> bool:
    """Replace, in place, the nodes of the main graph that have a definition here.

    Args:
        model: Its values have types and shapes.
        prefix: Start of the names of new values, which no other name starts with.

    Returns:
        Whether there was any.
    """

    def written(op: Ops, node: ir.Node) -> Sequence[Tensor]:
        inputs = tuple(None if v is None else Tensor(v, op) for v in node.inputs)
        outputs = tuple(Tensor(v, op) for v in node.outputs)
        call = Call(node, op, inputs, outputs, (False,) * len(inputs))
        return _DEFINITIONS[node.op_type][1](call)

    return rewrite(model, prefix, _applies, written)


def _applies(node: ir.Node) -> bool:
    entry = _DEFINITIONS.get(node.op_type)
    return node.domain in {"", "ai.onnx"} and entry is not None and entry[0](node)


def _defined(
    *op_types: str, where: Callable[[ir.Node], bool] = lambda _: True
) -> Callable[[Definition], Definition]:
    def register(definition: Definition) -> Definition:
        _DEFINITIONS.update(dict.fromkeys(op_types, (where, definition)))
        return definition

    return register


# Recurrent nodes

_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
_RULED = [*([names, names * 2] for names in _DEFAULTS.values()), [["Relu"], ["Relu", "Relu"]]]
_ALPHA = {"LeakyRelu": 0.01, "ThresholdedRelu": 1.0, "HardSigmoid": 0.2, "Elu": 1.0}
_BETA = {"HardSigmoid": 0.5}
_TAKES = {
    "Affine": 2,
    "ScaledTanh": 2,
    "HardSigmoid": 2,
    "LeakyRelu": 1,
    "ThresholdedRelu": 1,
    "Elu": 1,
}
"""How many parameters an activation has: alpha, beta."""
_MOST_STEPS = 512


def _unusual(node: ir.Node) -> bool:
    """Whether the rules of `rules/recurrent.py` do not know this form."""
    names = node.attributes.get("activations")
    usual = [
        *_RULED[list(_DEFAULTS).index(node.op_type)],
        *(_RULED[3] if node.op_type == "RNN" else []),
    ]
    return (
        (names is not None and list(names.as_strings()) not in usual)
        or "clip" in node.attributes
        or bool(node.attributes.get_int("input_forget", 0))
        or (len(node.inputs) > 7 and node.inputs[7] is not None)
    )


Activation = Callable[[Tensor], Tensor]


def _activations(call: Call) -> list[Activation]:
    """In the order of the attribute; alphas and betas are dealt out to those that take them.

    What enters them is clipped, but for the cell that an LSTM's last one reads, as in onnxruntime.
    """
    names = call.node.attributes.get("activations")
    alphas, betas = (
        iter(() if a is None else a.as_floats())
        for a in map(call.node.attributes.get, ("activation_alpha", "activation_beta"))
    )
    found: list[Activation] = []
    for name in _DEFAULTS[call.node.op_type] * 2 if names is None else names.as_strings():
        takes = _TAKES.get(name, 0)
        alpha = next(alphas, _ALPHA.get(name, 1.0)) if takes else 0.0
        beta = next(betas, _BETA.get(name, 0.0)) if takes > 1 else 0.0
        of_cell = call.node.op_type == "LSTM" and len(found) % 3 == 2
        limit = 0.0 if of_cell else call.float("clip")
        found.append(_activation(call.op, name, alpha, beta, limit))
    return found


def _activation(op: Ops, name: str, alpha: float, beta: float, limit: float) -> Activation:
    formulas: dict[str, Activation] = {
        "Affine": lambda x: x * alpha + beta,
        "ScaledTanh": lambda x: op.Tanh(x * beta) * alpha,
        "HardSigmoid": lambda x: op.HardSigmoid(x, alpha=alpha, beta=beta),
    }
    alphas: dict[str, Any] = {"alpha": alpha} if alpha else {}

    def plain(x: Tensor) -> Tensor:
        return op.call(name, x, **alphas)[0]

    formula = formulas.get(name, plain)
    return lambda x: formula(op.Min(op.Max(x, -limit), limit) if limit else x)


@_defined("LSTM", "GRU", "RNN", where=_unusual)
def recurrent(call: Call) -> Sequence[Tensor]:
    """Each direction step by step, in the notation of the ONNX standard."""
    op, x = call.op, call.x
    steps = x.shape[0]
    if steps is None or steps > _MOST_STEPS:
        raise call.error("in this form, its number of steps must be static and at most 512")
    if call.int("layout"):
        raise call.error("layout=1 is not supported")
    functions, gates = _activations(call), len(_DEFAULTS[call.node.op_type])
    direction = call.str("direction", "forward")
    ys, lasts = [], []
    turns = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    for k, backwards in enumerate(turns):
        step = _cell(call, k, functions[gates * k : gates * (k + 1)])
        states = _first_states(call, k)
        rows: list[Tensor] = [states[0]] * steps
        for t in reversed(range(steps)) if backwards else range(steps):
            new = step(op.Gather(x, op.constant(np.array(t))), *states)
            rows[t], states = _within(call, t, new, states)
        ys.append(op.Concat(*(op.Unsqueeze(row, [0]) for row in rows), axis=0))
        lasts.append(states)
    y = op.Concat(*(op.Unsqueeze(part, [1]) for part in ys), axis=1)
    return [
        y,
        *(
            op.Concat(*(op.Unsqueeze(s, [0]) for s in parts), axis=0)
            for parts in zip(*lasts, strict=True)
        ),
    ]


def _first_states(call: Call, k: int) -> list[Tensor]:
    op, x = call.op, call.x
    batch = op.Slice(op.shape_of(x), [1], [2], [0])
    shape = op.Concat(batch, op.constant(np.array([call.int("hidden_size")])), axis=0)
    zeros = op.Expand(op.constant(np.zeros(()), x.dtype), shape)
    given = [call.input(place) for place in ((5, 6) if call.node.op_type == "LSTM" else (5,))]
    return [zeros if s is None else op.Gather(s, op.constant(np.array(k))) for s in given]


def _within(
    call: Call, t: int, new: Sequence[Tensor], old: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """What a step gives, and the states after it; behind a sequence's end nothing, and the old ones."""
    lengths = call.input(4)
    if lengths is None:
        return new[0], list(new)
    inside = call.op.Unsqueeze(call.op.Cast(lengths, to=7) > t, [1])
    states = [call.op.where(inside, a, b) for a, b in zip(new, old, strict=True)]
    return call.op.where(inside, new[0], 0.0), states


def _cell(call: Call, k: int, functions: Sequence[Activation]) -> Callable[..., Sequence[Tensor]]:
    """One step of direction k: (x, h[, c]) -> (h[, c])."""
    op, kind = call.op, call.node.op_type
    count = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]

    def parts(place: int, pieces: int) -> Sequence[Tensor | None]:
        tensor = call.input(place)
        if tensor is None:
            return [None] * pieces
        own = op.Gather(tensor, op.constant(np.array(k)))
        return op.call("Split", own, outputs=pieces, axis=0, num_outputs=pieces)

    w, r, b, p = parts(1, count), parts(2, count), parts(3, 2 * count), parts(7, 3)

    def product(x: Tensor, weights: Tensor | None, bias: Tensor | None) -> Tensor:
        assert weights is not None
        result = op.MatMul(x, op.Transpose(weights, perm=[1, 0]))
        return result if bias is None else result + bias

    def gate(g: int, x: Tensor, h: Tensor) -> Tensor:
        return product(x, w[g], b[g]) + product(h, r[g], b[count + g])

    def peek(g: int, c: Tensor) -> Tensor | float:
        weights = p[g]
        return 0.0 if weights is None else weights * c

    def lstm(x: Tensor, h: Tensor, c: Tensor) -> Sequence[Tensor]:
        act, squash, out = functions
        i = act(gate(0, x, h) + peek(0, c))
        f = 1.0 - i if call.int("input_forget") else act(gate(2, x, h) + peek(2, c))
        c = f * c + i * squash(gate(3, x, h))
        return act(gate(1, x, h) + peek(1, c)) * out(c), c

    def gru(x: Tensor, h: Tensor) -> Sequence[Tensor]:
        act, squash = functions
        z, reset = act(gate(0, x, h)), act(gate(1, x, h))
        if call.int("linear_before_reset"):
            inner = reset * product(h, r[2], b[5])
        else:
            inner = product(reset * h, r[2], b[5])
        n = squash(product(x, w[2], b[2]) + inner)
        return [(1.0 - z) * n + z * h]

    def rnn(x: Tensor, h: Tensor) -> Sequence[Tensor]:
        return [functions[0](gate(0, x, h))]

    cells: dict[str, Callable[..., Sequence[Tensor]]] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}
    return cells[kind]


# Frames of a signal


@_defined("STFT")
def stft(call: Call) -> Sequence[Tensor]:
    """Short-time Fourier transform of batch x samples x 1 (or 2)."""
    op, (x, step) = call.op, call.inputs[:2]
    window, length = call.input(2), call.input(3)
    if length is None and window is None:
        raise NoGradientError("STFT without a window and a frame length")
    size = op.Shape(window) if length is None else op.reshape(length, [1])
    samples = op.Slice(op.shape_of(x), [1], [2], [0])
    stride = op.Cast(op.reshape(step, [1]), to=7)
    size = op.Cast(size, to=7)
    zero, one = (op.constant(np.array(k)) for k in (0, 1))
    count = (samples - size) / stride + 1
    starts = op.Range(zero, op.Squeeze(count, [0]), one) * stride
    places = op.Unsqueeze(starts, [1]) + op.Range(zero, op.Squeeze(size, [0]), one)
    frames = op.Gather(x, places, axis=1)  # batch x frames x size x parts
    if window is not None:
        frames = frames * op.Unsqueeze(window, [1])
    onesided = call.int("onesided", 1)
    if op.graph.opset_imports[""] < 20:
        return [op.DFT(frames, axis=2, onesided=onesided)]
    return [op.DFT(frames, None, op.constant(np.array(2)), onesided=onesided)]


# Convolution at places that the data says


@_defined("DeformConv")
def deform_conv(call: Call) -> Sequence[Tensor]:
    """Dai et al. 2017, arXiv:1703.06211, with masks (Zhu et al. 2018, arXiv:1811.11168), in 2-D."""
    op, (x, w, offset) = call.op, call.inputs[:3]
    bias, mask = call.input(3), call.input(4)
    if x.rank != 4 or None in (*x.shape, *w.shape, *call.y.shape):
        raise call.error("only 2-D, of static sizes")
    n, c, *size = (int(s or 0) for s in x.shape)
    k, _, *kernel = (int(s or 0) for s in w.shape)
    out = [int(s or 0) for s in call.y.shape[2:]]
    strides, dilations = call.ints("strides", [1, 1]), call.ints("dilations", [1, 1])
    pads, group = call.ints("pads", [0] * 4), call.int("group", 1)
    fields, taps, places = call.int("offset_group", 1), kernel[0] * kernel[1], out[0] * out[1]
    base = np.array(
        [
            [
                [
                    [
                        i * strides[0] - pads[0] + a * dilations[0],
                        j * strides[1] - pads[1] + b * dilations[1],
                    ]
                ]
                for i, j in itertools.product(range(out[0]), range(out[1]))
            ]
            for a, b in itertools.product(range(kernel[0]), range(kernel[1]))
        ]
    ).reshape(1, 1, taps, places, 2)
    moved = op.Transpose(op.reshape(offset, [n, fields, taps, 2, places]), perm=[0, 1, 2, 4, 3])
    pixels = moved + op.constant(base, x.dtype)
    to_grid = op.constant(np.array([2.0 / size[0], 2.0 / size[1]]), x.dtype)
    grid = (pixels + 0.5) * to_grid - 1.0
    grid = op.Gather(grid, [1, 0], axis=-1)  # GridSample counts from the last axis
    images = op.reshape(x, [n * fields, c // fields, *size])
    grid = op.reshape(grid, [n * fields, taps, places, 2])
    mode = "bilinear" if op.graph.opset_imports[""] < 20 else "linear"
    read = op.GridSample(images, grid, mode=mode, padding_mode="zeros", align_corners=0)
    if mask is not None:
        read = read * op.reshape(mask, [n * fields, 1, taps, places])
    columns = op.reshape(read, [n, group, c // group * taps, places])
    rows = op.reshape(w, [1, group, k // group, c // group * taps])
    y = op.reshape(op.MatMul(rows, columns), [n, k, *out])
    return [y if bias is None else y + op.reshape(bias, [1, k, 1, 1])]
