"""One direction of an LSTM, GRU or RNN: back-propagation through time.

The hidden states of a GRU or RNN are among the outputs, so everything that a step computes can be
computed again for all steps at once. An LSTM tells nothing of its cells: it is run as a loop (Scan)
that keeps them and the gates, in place of the node. Then only the recurrences of the gradients are
left to a loop, backward, with all coefficients prepared. With s' = s (1 - s) and da the gradient
before the activations,

    LSTM  c = f c- + i g,  h = o tanh c
          dc += dh o (1 - tanh^2 c);  da = (dc g i', dh tanh(c) o', dc c- f', dc i (1 - g^2));
          dc- = dc f;  dh- = da R
    GRU   h = (1 - z) n + z h-
          dz = dh (h- - n) z',  dn = dh (1 - z) (1 - n^2);  the reset gate before or after the
          product with R
    RNN   h = f(a);  da = dh f';  dh- = da R
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.registry import Call
from onnxprune.autodiff.rules.scan import scan

__all__ = ["Direction", "Result", "gru", "lstm", "outer", "rnn"]


@dataclass(frozen=True)
class Direction:
    """One direction of a recurrent node, turned so that time runs forward.

    Shapes: x T x B x I, w gates*H x I, r gates*H x H, bias 2*gates*H, h and dy T x B x H, states B
        x H, mask T x B x 1.
    """

    call: Call
    x: Tensor
    w: Tensor
    r: Tensor
    bias: Tensor | None
    h: Tensor
    first_h: Tensor
    first_c: Tensor | None
    dy: Tensor
    last_dh: Tensor
    last_dc: Tensor | None
    mask: Tensor | None

    @property
    def before(self) -> Tensor:
        """The hidden state that each step started from."""
        return shifted(self.call.op, self.first_h, self.h)

    def gates(self, product: Tensor, count: int) -> tuple[Tensor, ...]:
        """Split the last axis."""
        return self.call.op.call("Split", product, outputs=count, axis=-1, num_outputs=count)

    def biases(self) -> tuple[Tensor, Tensor]:
        """Of the input's and of the state's product; zeros if there are none."""
        op = self.call.op
        if self.bias is None:
            zero = op.constant(np.zeros(1), self.x.dtype)
            return zero, zero
        w, r = op.call("Split", self.bias, outputs=2, axis=0, num_outputs=2)
        return w, r

    def masked(self, coefficient: Tensor, otherwise: float = 0.0) -> Tensor:
        """The coefficient, and `otherwise` behind the end of a sequence."""
        if self.mask is None:
            return coefficient
        return self.call.op.where(self.mask, coefficient, otherwise)

    def kept(self) -> list[Tensor]:
        """1 behind the end of a sequence, where the state is kept, as a sequence to scan."""
        if self.mask is None:
            return []
        return [1.0 - self.call.op.cast(self.mask, self.x.dtype)]


@dataclass(frozen=True)
class Result:
    """What a direction gives.

    Gradients before the activations, at the input's product and at the state's, and of the first
    states.
    """

    input_side: Tensor
    state_side: Tensor
    first_dh: Tensor
    first_dc: Tensor | None = None
    d_r: Tensor | None = None  # where it is not state_side^T h-
    forward: tuple[Tensor, ...] | None = None  # the node's outputs, where they were computed anew


def shifted(op: Ops, first: Tensor, sequence: Tensor) -> Tensor:
    """A sequence one step later, `first` at its start."""
    return op.Concat(op.Unsqueeze(first, [0]), op.Slice(sequence, [0], [-1], [0]), axis=0)


def _turned(x: Tensor) -> Tensor:
    return x.ops.Transpose(x, perm=[1, 0])


def lstm(d: Direction) -> Result:
    """Gates in the order i o f g; the node is run anew, as a loop that keeps them."""
    op = d.call.op
    assert d.first_c is not None
    assert d.last_dc is not None
    wb, rb = d.biases()
    recurrent, halves = d.r, op.constant(np.array([3 * _size(d), _size(d)]))

    def run(
        inner: Ops, states: Sequence[Tensor], slices: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        a = inner.Gemm(states[0], Tensor(recurrent.value, inner), slices[0], transB=1)
        opened, written = inner.call("Split", a, Tensor(halves.value, inner), outputs=2, axis=-1)
        gates, g = inner.Sigmoid(opened), inner.Tanh(written)
        i, o, f = inner.call("Split", gates, outputs=3, axis=-1, num_outputs=3)
        c = f * states[1] + i * g
        new = [o * inner.Tanh(c), c]
        if d.mask is not None:
            new = [inner.where(slices[1], a, b) for a, b in zip(new, states, strict=True)]
        return new, [new[1], gates, g]

    inputs = op.MatMul(d.x, _turned(d.w)) + (wb + rb)
    masks = [] if d.mask is None else [d.mask]
    lasts, (cells, opened, g) = scan(op, run, [d.first_h, d.first_c], [inputs, *masks])
    i, o, f = d.gates(opened, 3)
    forget = d.masked(f, 1.0)
    tanh = op.Tanh(cells)
    k_c = d.masked(o * (1.0 - tanh * tanh))
    k_o = d.masked(tanh * o * (1.0 - o))
    k_i = d.masked(g * i * (1.0 - i))
    k_f = d.masked(shifted(op, d.first_c, cells) * f * (1.0 - f))
    k_g = d.masked(i * (1.0 - g * g))
    slopes = op.Concat(k_i, k_f, k_g, k_o, axis=-1)
    ri, ro, rf, rg = op.call("Split", d.r, outputs=4, axis=0, num_outputs=4)
    r = op.Concat(ri, rf, rg, ro, axis=0)
    kept = d.kept()

    def step(
        inner: Ops, states: Sequence[Tensor], slices: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        dh, (dy, kc, slope, keep_c) = states[0], slices[:4]
        dc = states[1] + dh * kc
        da = inner.Concat(dc, dc, dc, dh, axis=-1) * slope
        back = inner.Gemm(da, Tensor(r.value, inner), dy)
        if kept:
            back = back + dh * slices[4]
        return [back, dc * keep_c], [da]

    # The gradient of h, as a state, holds that of the output already: each step adds that of the one before.
    last = op.Squeeze(op.Slice(d.dy, [-1], [2**31], [0]), [0])
    earlier = op.Pad(op.Slice(d.dy, [0], [-1], [0]), [1, 0, 0, 0, 0, 0])
    first, (da,) = scan(
        op,
        step,
        [d.last_dh + last, d.last_dc],
        [earlier, k_c, slopes, forget, *kept],
        reverse=True,
    )
    di, df, dg, do = d.gates(da, 4)
    da = op.Concat(di, do, df, dg, axis=-1)
    return Result(da, da, first[0], first[1], forward=(d.masked(o * tanh), *lasts))


def gru(d: Direction) -> Result:
    """Gates in the order z r n."""
    op, after = d.call.op, bool(d.call.int("linear_before_reset"))
    wb, rb = d.biases()
    before = d.before
    xz, xr, xn = d.gates(op.MatMul(d.x, _turned(d.w)) + wb, 3)
    hz, hr, hn = d.gates(op.MatMul(before, _turned(d.r)) + rb, 3)
    z, reset = op.Sigmoid(xz + hz), op.Sigmoid(xr + hr)
    r_zr = op.Slice(d.r, [0], [_size(d) * 2], [0])
    r_n = op.Slice(d.r, [_size(d) * 2], [2**31], [0])
    if after:
        n = op.Tanh(xn + reset * hn)
        k_r = d.masked(hn * reset * (1.0 - reset))
    else:
        bias = op.constant(np.zeros(1), d.x.dtype)
        if d.bias is not None:
            bias = op.Slice(rb, [_size(d) * 2], [2**31], [0])
        n = op.Tanh(xn + op.MatMul(reset * before, _turned(r_n)) + bias)
        k_r = d.masked(before * reset * (1.0 - reset))
    k_z = d.masked((before - n) * z * (1.0 - z))
    k_n = d.masked((1.0 - z) * (1.0 - n * n))
    keep = d.masked(z, 1.0)

    def step(
        inner: Ops, states: Sequence[Tensor], slices: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        dy, kz, kn, kr, keep_h, gate = slices
        dh = states[0] + dy
        dz, dn = dh * kz, dh * kn
        if after:
            d_state = inner.Concat(dz, dn * kr, dn * gate, axis=-1)
            back = dh * keep_h + inner.MatMul(d_state, Tensor(d.r.value, inner))
            return [back], [inner.Concat(dz, dn * kr, dn, axis=-1), d_state]
        du = inner.MatMul(dn, Tensor(r_n.value, inner))
        dzr = inner.Concat(dz, du * kr, axis=-1)
        back = dh * keep_h + du * gate + inner.MatMul(dzr, Tensor(r_zr.value, inner))
        da = inner.Concat(dzr, dn, axis=-1)
        return [back], [da, da]

    first, (inputs, states) = scan(
        op, step, [d.last_dh], [d.dy, k_z, k_n, k_r, keep, reset], reverse=True
    )
    if after:
        return Result(inputs, states, first[0])
    dz, dr, dn = d.gates(states, 3)
    d_zr = outer(op, op.Concat(dz, dr, axis=-1), before)
    d_n = outer(op, dn, reset * before)
    return Result(inputs, states, first[0], d_r=op.Concat(d_zr, d_n, axis=0))


def _size(d: Direction) -> int:
    """The number of hidden units."""
    return d.call.int("hidden_size")


def rnn(d: Direction) -> Result:
    """With f = tanh or ReLU."""
    op = d.call.op
    attribute = d.call.node.attributes.get("activations")
    relu = attribute is not None and attribute.as_strings()[0] == "Relu"
    slope = d.masked(op.Sign(d.h) if relu else 1.0 - d.h * d.h)
    kept = d.kept()

    def step(
        inner: Ops, states: Sequence[Tensor], slices: Sequence[Tensor]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        dh = states[0] + slices[0]
        da = dh * slices[1]
        back = inner.MatMul(da, Tensor(d.r.value, inner))
        return [back + dh * slices[2] if kept else back], [da]

    first, (da,) = scan(op, step, [d.last_dh], [d.dy, slope, *kept], reverse=True)
    return Result(da, da, first[0])


def outer(op: Ops, a: Tensor, b: Tensor) -> Tensor:
    """The sum over time and batch of the outer products of two sequences."""
    left, right = op.Flatten(a, axis=2), op.Flatten(b, axis=2)
    return op.MatMul(op.Transpose(left, perm=[1, 0]), right)
