"""LSTM, GRU and RNN in numpy on float64, one sample and one step at a time, in every form of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]


def sigmoid(x: Array) -> Array:
    """The logistic function."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ACTIVATIONS: dict[str, Callable[[Array, float, float], Array]] = {
    "sigmoid": lambda x, _a, _b: sigmoid(x),
    "tanh": lambda x, _a, _b: np.tanh(x),
    "relu": lambda x, _a, _b: np.maximum(x, 0),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, _b: np.where(x < 0, a * x, x),
    "thresholdedrelu": lambda x, a, _b: np.where(x > a, x, 0),
    "scaledtanh": lambda x, a, b: a * np.tanh(b * x),
    "hardsigmoid": lambda x, a, b: np.clip(a * x + b, 0, 1),
    "elu": lambda x, a, _b: np.where(x < 0, a * np.expm1(x), x),
    "softsign": lambda x, _a, _b: x / (1 + np.abs(x)),
    "softplus": lambda x, _a, _b: np.logaddexp(x, 0),
}
TAKE_ALPHA = {"affine", "leakyrelu", "thresholdedrelu", "scaledtanh", "hardsigmoid", "elu"}
TAKE_BETA = {"affine", "scaledtanh", "hardsigmoid"}
DEFAULT_ALPHA = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "hardsigmoid": 0.2, "elu": 1.0}
DEFAULT_BETA = {"hardsigmoid": 0.5}


def activations(attributes: Attributes, default: list[str]) -> list[list[Callable[[Array], Array]]]:
    """The functions of each direction; alphas and betas are dealt out to those that take one."""
    turns = 2 if attributes.get("direction") == "bidirectional" else 1
    names = [n.lower() for n in attributes.get("activations", default * turns)]
    alphas = iter(attributes.get("activation_alpha", ()))
    betas = iter(attributes.get("activation_beta", ()))
    found: list[Callable[[Array], Array]] = []
    for name in names:
        read = len(default) == 3 and len(found) % 3 == 2  # an LSTM's cell, by its output
        clip = np.inf if read else attributes.get("clip", np.inf)
        alpha = next(alphas, DEFAULT_ALPHA.get(name, 1.0)) if name in TAKE_ALPHA else 0.0
        beta = next(betas, DEFAULT_BETA.get(name, 0.0)) if name in TAKE_BETA else 0.0
        function = ACTIVATIONS[name]
        found.append(lambda x, f=function, a=alpha, b=beta, c=clip: f(np.clip(x, -c, c), a, b))
    each = len(default)
    return [found[k * each : (k + 1) * each] for k in range(turns)]


Step = Callable[..., tuple[Array, ...]]


def _lstm_step(f: Any, attributes: Attributes, r: Array, rb: Array, p: Any) -> Step:
    act, squash, out = f

    def step(x: Array, h: Array, c: Array) -> tuple[Array, ...]:
        i, o, g, n = np.split(x + h @ r.T + rb, 4, -1)
        pi, po, pf = np.split(p, 3)
        i = act(i + pi * c)
        g = 1 - i if attributes.get("input_forget") else act(g + pf * c)
        c = g * c + i * squash(n)
        return act(o + po * c) * out(c), c

    return step


def _gru_step(f: Any, attributes: Attributes, r: Array, rb: Array, p: Any) -> Step:
    act, squash = f
    after = attributes.get("linear_before_reset")

    def step(x: Array, h: Array) -> tuple[Array, ...]:
        (xz, xr, xn), (rz, rr, rn) = np.split(x, 3, -1), np.split(r, 3)
        bz, br, bn = np.split(rb, 3)
        z, reset = act(xz + h @ rz.T + bz), act(xr + h @ rr.T + br)
        inner = reset * (h @ rn.T + bn) if after else (reset * h) @ rn.T + bn
        return ((1 - z) * squash(xn + inner) + z * h,)

    return step


def _rnn_step(f: Any, attributes: Attributes, r: Array, rb: Array, p: Any) -> Step:
    return lambda x, h: (f[0](x + h @ r.T + rb),)


_KINDS: dict[str, tuple[list[str], Callable[..., Step]]] = {
    "LSTM": (["sigmoid", "tanh", "tanh"], _lstm_step),
    "GRU": (["sigmoid", "tanh"], _gru_step),
    "RNN": (["tanh"], _rnn_step),
}


def recurrent(kind: str) -> Callable[..., list[Array]]:
    """The op of that name."""
    default, make = _KINDS[kind]
    states = 2 if kind == "LSTM" else 1

    def op(attributes: Attributes, *inputs: Array | None) -> list[Array]:
        x, w, r, b, lengths, *first = [*inputs, *[None] * (8 - len(inputs))]
        assert x is not None
        assert w is not None
        assert r is not None
        batch_first = attributes.get("layout", 0)
        if batch_first:
            x = np.swapaxes(x, 0, 1)
            first = [a if a is None or a.ndim < 3 else np.swapaxes(a, 0, 1) for a in first]
        steps, batch = x.shape[:2]
        directions, hidden = r.shape[0], r.shape[2]
        ends = np.full(batch, steps) if lengths is None else lengths
        y = np.zeros((steps, directions, batch, hidden))
        last = [np.zeros((directions, batch, hidden)) for _ in range(states)]
        functions = activations(attributes, default)
        for k in range(directions):
            wb, rb = np.zeros((2, w.shape[1])) if b is None else np.split(b[k], 2)
            peephole = np.zeros(3 * hidden) if first[2] is None else first[2][k]
            xw = x @ w[k].T + wb
            step = make(functions[k], attributes, r[k], rb, peephole)
            for n in range(batch):
                now = [
                    np.zeros(hidden) if given is None else given[k, n] for given in first[:states]
                ]
                times = range(int(ends[n]))
                backwards = k == 1 or attributes.get("direction") == "reverse"
                for t in reversed(times) if backwards else times:
                    now = list(step(xw[t, n], *now))
                    y[t, k, n] = now[0]
                for state, value in zip(last, now, strict=True):
                    state[k, n] = value
        if batch_first:
            y, last = np.moveaxis(y, 2, 0), [np.swapaxes(a, 0, 1) for a in last]
        return [y, *last]

    return op
