"""LSTM, GRU and RNN in forms that `rules/recurrent.py` has no rule for: step by step.

Peepholes, clip, coupled gates, other activations than the usual ones. The number of steps must be
static.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.definitions.table import defined
from onnxprune.autodiff.registry import Call

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


@defined("LSTM", "GRU", "RNN", where=_unusual)
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
