"""LSTM, GRU and RNN: their directions taken apart, differentiated, and put together.

The reverse direction is the forward one on sequences turned around; behind a sequence's length the
state is kept. What one direction gives is in `cells.py`: da, the gradient before the activations.
Then dX = da W, dW = da^T X, dR = da^T h-, one product each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call, Gradients, vjp
from onnxprune.autodiff.rules import cells
from onnxprune.autodiff.rules.cells import Direction, Result, outer


@vjp("LSTM")
def lstm(call: Call, *dys: Tensor | None) -> Gradients:
    """Hochreiter and Schmidhuber 1997; gates in the order i o f g."""
    _only_defaults(call, ["Sigmoid", "Tanh", "Tanh"])
    if call.input(7) is not None:
        raise call.error("peepholes are not supported")
    if call.int("input_forget"):
        raise call.error("input_forget is not supported")
    return _recurrent(call, dys, cells.lstm)


@vjp("GRU")
def gru(call: Call, *dys: Tensor | None) -> Gradients:
    """Cho et al. 2014, arXiv:1406.1078; gates in the order z r n."""
    _only_defaults(call, ["Sigmoid", "Tanh"])
    return _recurrent(call, dys, cells.gru)


@vjp("RNN")
def rnn(call: Call, *dys: Tensor | None) -> Gradients:
    """Elman 1990, with tanh or ReLU."""
    _only_defaults(call, ["Tanh"], ["Relu"])
    return _recurrent(call, dys, cells.rnn)


def _only_defaults(call: Call, *allowed: list[str]) -> None:
    attribute = call.node.attributes.get("activations")
    directions = 2 if call.str("direction", "forward") == "bidirectional" else 1
    if attribute is not None and list(attribute.as_strings()) not in [
        activations * directions for activations in allowed
    ]:
        raise call.error(f"activations other than {' or '.join(map(str, allowed))}")
    if "clip" in call.node.attributes:
        raise call.error("clip is not supported")
    if call.int("layout"):
        raise call.error("layout=1 is not supported")


def _recurrent(
    call: Call, dys: Sequence[Tensor | None], cell: Callable[[Direction], Result]
) -> Gradients:
    """Take the directions apart, differentiate each, and put the gradients together."""
    op = call.op
    direction = call.str("direction", "forward")
    reversed_ = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    parts, outputs = [], []
    for index, backwards in enumerate(reversed_):
        d = _direction(call, dys, index, backwards)
        result = cell(d)
        if result.forward is not None:
            y, *lasts = result.forward
            d = replace(d, h=y)
            outputs.append((_in_time(call, y, backwards), *lasts))
        dx = op.MatMul(result.input_side, d.w)
        d_r = outer(op, result.state_side, d.before) if result.d_r is None else result.d_r
        bias = op.Concat(
            op.sum(result.input_side, [0, 1]), op.sum(result.state_side, [0, 1]), axis=0
        )
        parts.append(
            (
                _in_time(call, dx, backwards),
                outer(op, result.input_side, d.x),
                d_r,
                bias,
                result.first_dh,
                result.first_dc,
            )
        )

    if outputs and call.node.graph is op.graph:
        _take_over(call, outputs)

    def stacked(place: int) -> Tensor:
        return op.Concat(*(op.Unsqueeze(part[place], [0]) for part in parts), axis=0)

    dx = parts[0][0] if len(parts) == 1 else parts[0][0] + parts[1][0]
    gradients: list[Tensor | None] = [dx, stacked(1), stacked(2), stacked(3), None, stacked(4)]
    if parts[0][5] is not None:
        gradients += [stacked(5), None]
    return [
        gradient if i < len(call.inputs) and call.inputs[i] is not None else None
        for i, gradient in enumerate(gradients[: len(call.inputs)])
    ]


def _take_over(call: Call, directions: Sequence[tuple[Tensor, ...]]) -> None:
    """Have what reads the node's outputs read those of each direction; the node is of no more use."""
    op = call.op
    for place, (old, *parts) in enumerate(zip(call.node.outputs, *directions, strict=False)):
        axis = 1 if place == 0 else 0
        new = op.Concat(*(op.Unsqueeze(part, [axis]) for part in parts), axis=axis).value
        new.type, new.shape = old.type, old.shape
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def _direction(call: Call, dys: Sequence[Tensor | None], index: int, backwards: bool) -> Direction:
    op, x = call.op, call.x

    def pick(place: int) -> Tensor | None:
        tensor = call.input(place)
        return None if tensor is None else _index(op, tensor, index, 0)

    w, r = pick(1), pick(2)
    assert w is not None
    assert r is not None
    lengths = call.input(4)
    steps = op.Slice(op.shape_of(x), [0], [1], [0])
    batch = op.Slice(op.shape_of(x), [1], [2], [0])
    size = op.constant(np.array([call.int("hidden_size")]))
    zeros = op.Expand(op.constant(np.zeros(()), x.dtype), op.Concat(batch, size, axis=0))
    no_dy = op.Expand(op.constant(np.zeros(()), x.dtype), op.Concat(steps, batch, size, axis=0))

    def given(place: int) -> Tensor | None:
        return dys[place] if place < len(dys) else None

    dy, dh, dc = given(0), given(1), given(2)
    mask = None
    if lengths is not None:
        line = op.Range(op.constant(np.array(0)), op.Squeeze(steps, [0]), op.constant(np.array(1)))
        limits = op.Cast(lengths, to=7)
        mask = op.Unsqueeze(op.Less(op.Unsqueeze(line, [1]), op.Unsqueeze(limits, [0])), [2])
    dy = no_dy if dy is None else _in_time(call, _index(op, dy, index, 1), backwards)
    if mask is not None:
        dy = op.where(mask, dy, 0.0)
    is_lstm = call.node.op_type == "LSTM"
    return Direction(
        call,
        _in_time(call, x, backwards),
        w,
        r,
        pick(3),
        _in_time(call, _index(op, _hidden(call), index, 1), backwards),
        pick(5) or zeros,
        (pick(6) or zeros) if is_lstm else None,
        dy,
        zeros if dh is None else _index(op, dh, index, 0),
        (zeros if dc is None else _index(op, dc, index, 0)) if is_lstm else None,
        mask,
    )


def _hidden(call: Call) -> Tensor:
    """All hidden states: the first output, asked for if the node leaves it out."""
    value = call.node.outputs[0]
    if not value.name:
        value.name = f"{call.op.unique_name(call.node.op_type)}.states"
        value.type = call.inputs[0].value.type
    return Tensor(value, call.op)


def _index(op: Ops, x: Tensor, index: int, axis: int) -> Tensor:
    return op.Gather(x, op.constant(np.array(index)), axis=axis)


def _in_time(call: Call, x: Tensor, backwards: bool) -> Tensor:
    """A sequence turned around, each within its own length; itself if the direction is forward."""
    if not backwards:
        return x
    lengths = call.input(4)
    if lengths is None:
        return call.op.Slice(x, [-1], [-(2**31)], [0], [-1])
    return call.op.ReverseSequence(x, call.op.Cast(lengths, to=7), time_axis=0, batch_axis=1)
