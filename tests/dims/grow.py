"""Random valid models: a graph that grows op by op, each drawn among those that fit the values there are.

Axis 0 is the batch, open; the sizes of all others are known while the graph grows. Every value that nobody reads at
the end goes through a linear layer into an output, so that its channels are not part of the interface.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.dims.growing import Graph, Shape

ZERO_STAYS = ("Relu", "Tanh", "LeakyRelu", "HardSwish", "Elu", "Softsign", "Abs", "Neg", "Gelu")
OTHERS = ("Sigmoid", "Softplus", "Exp", "Cos")
LARGEST = 4096
"""Values do not grow beyond this many elements."""


@st.composite
def models(draw: st.DrawFn, steps: int = 12, neutral: bool = True) -> onnx.ModelProto:
    """A model of one input.

    Args:
        draw: Of hypothesis.
        steps: The largest number of ops (some are a few nodes).
        neutral: Sums without weights run only over values in which what is masked is zero (no bias along another
            axis, no f(0) other than 0), so that every cut that the rules allow is exact.
    """
    grown = Growing(draw, neutral)
    for _ in range(draw(st.integers(2, steps))):
        grown.step()
    return grown.finish()


class Growing(Graph):
    """A graph and the ops that it grows by."""

    def __init__(self, draw: st.DrawFn, neutral: bool) -> None:
        super().__init__(draw, neutral)
        if len(self.input) == 3:
            self.convolution("x", self.input)
        else:
            self.linear("x", self.input)

    def step(self) -> None:
        """One more op on a value drawn, among the later ones above all."""
        names = list(self.shapes)[1:]
        name = names[-1 - min(self.integer(0, len(names) - 1), self.integer(0, len(names) - 1))]
        ops = self.everywhere() + (self.images() if len(self.shapes[name]) == 3 else [])
        if len(self.shapes[name]) == 2:
            ops += [self.recurrent, self.attention]
        self.pick(ops)(name, self.shapes[name])

    def everywhere(self) -> list[Callable[[str, Shape], None]]:
        """Ops on values of any rank."""
        return [
            self.linear,
            self.function,
            self.with_other,
            self.with_other,
            self.concat,
            self.split,
            self.slice,
            self.gather,
            self.merge_axes,
            self.divide_axis,
            self.transpose,
            self.per_channel,
            self.reduce,
            self.pad,
            self.tile,
            self.softmax,
            self.layer_norm,
            self.gram,
            # onnxruntime 1.31 aborts on some models of both.
            self.quantise if self.quantised else self.condition,
            self.gate,
        ]

    def images(self) -> list[Callable[[str, Shape], None]]:
        """Ops on values of channels, height and width."""
        return [
            self.convolution,
            self.convolution,
            self.grouped,
            self.transposed,
            self.batch_norm,
            self.instance_norm,
            self.pool,
            self.squeeze_excite,
            self.depth_to_space,
            self.space_to_depth,
            self.resize,
            self.shuffle,
        ]

    # Ops.

    def function(self, x: str, shape: Shape) -> None:
        op = self.pick(ZERO_STAYS + OTHERS)
        if op == "Exp":
            x = self.emit("Tanh", [x], None)
        self.emit(op, [x], shape, clean=x in self.clean and op in ZERO_STAYS)

    def linear(self, x: str, shape: Shape) -> None:
        n, m = shape[-1], self.pick((4, 6, 8))
        y = self.emit("MatMul", [x, self.weight(n, m, fan=n)], (*shape[:-1], m))
        if self.integer(0, 1):
            self.emit("Add", [y, self.bias(m)], (*shape[:-1], m), clean=len(shape) == 1)

    def convolution(self, x: str, shape: Shape) -> None:
        c, m, k = shape[0], self.pick((4, 6, 8)), self.pick((1, 3))
        inputs = [x, self.weight(m, c, k, k, fan=c * k * k)]
        inputs += [self.bias(m)] if self.integer(0, 1) else []
        self.emit("Conv", inputs, (m, *shape[1:]), clean=True, pads=[k // 2] * 4)

    def grouped(self, x: str, shape: Shape) -> None:
        c = shape[0]
        groups = self.pick([g for g in range(1, c + 1) if c % g == 0])
        m = groups * self.pick((1, 2, 4))
        w = self.weight(m, c // groups, 1, 1, fan=c // groups)
        self.emit("Conv", [x, w, self.bias(m)], (m, *shape[1:]), clean=True, group=groups)

    def transposed(self, x: str, shape: Shape) -> None:
        c = shape[0]
        if prod(shape) * 4 > LARGEST:
            return
        groups = self.pick([g for g in range(1, c + 1) if c % g == 0])
        m = self.pick((1, 2, 4))
        w = self.weight(c, m, 2, 2, fan=c // groups)
        inputs = [x, w] + ([self.bias(m * groups)] if self.integer(0, 1) else [])
        out = (m * groups, 2 * shape[1], 2 * shape[2])
        self.emit("ConvTranspose", inputs, out, clean=True, group=groups, strides=[2, 2])

    def with_other(self, x: str, shape: Shape) -> None:
        """Elementwise with another value of the same shape, or of size 1 here and there."""
        fits = [
            n
            for n, s in self.shapes.items()
            if len(s) == len(shape) and all(a in (b, 1) for a, b in zip(s, shape, strict=True))
        ]
        op, other = self.pick(("Add", "Mul", "Sub", "Max")), self.pick(fits)
        both = {x, other} <= self.clean and self.shapes[other] == shape
        self.emit(op, [x, other], shape, clean=both or (op == "Mul" and x in self.clean))

    def gate(self, x: str, shape: Shape) -> None:
        s = self.emit("Sigmoid", [x], None)
        self.emit("Mul", [x, s], shape)

    def concat(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        fits = [
            n
            for n, s in self.shapes.items()
            if len(s) == len(shape)
            and s[: k - 1] + s[k:] == shape[: k - 1] + shape[k:]
            and s[k - 1] + shape[k - 1] <= 32
        ]
        if not fits:
            return
        other = self.pick(fits)
        n = shape[k - 1] + self.shapes[other][k - 1]
        self.emit(
            "Concat", [x, other], (*shape[: k - 1], n, *shape[k:]), {x, other} <= self.clean, axis=k
        )

    def split(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        n = shape[k - 1]
        if n < 2:
            return
        first = self.integer(1, n - 1)
        inputs = [x, self.ints(first, n - first)]
        if first * 2 == n and self.integer(0, 1):
            inputs = [x]
        names = [f"v{self.count + 1}", f"v{self.count + 2}"]
        self.count += 2
        more = {"num_outputs": 2} if len(inputs) == 1 else {}
        self.nodes.append(helper.make_node("Split", inputs, names, axis=k, **more))
        self.read.update(inputs)
        for name, part in zip(names, (first, n - first), strict=True):
            self.shapes[name] = (*shape[: k - 1], part, *shape[k:])
            self.clean |= {name} if x in self.clean else set()

    def slice(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        n = shape[k - 1]
        step = self.pick([s for s in (1, 1, 1, 2) if n % s == 0])
        start = self.integer(0, n - 1) if step == 1 else self.integer(0, 1)
        end = self.pick((n, 2**31 - 1, 2**63 - 1)) if step > 1 else self.integer(start + 1, n)
        m = len(range(n)[start:end:step])
        inputs = [x, self.ints(start), self.ints(end), self.ints(k), self.ints(step)]
        self.emit("Slice", inputs, (*shape[: k - 1], m, *shape[k:]))

    def gather(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        n = shape[k - 1]
        where = self.draw(st.permutations(range(n)))
        if self.integer(0, 1):
            where = where[: self.integer(1, n)]
        indices = self.ints(*where)
        self.emit("Gather", [x, indices], (*shape[: k - 1], len(where), *shape[k:]), axis=k)

    def merge_axes(self, x: str, shape: Shape) -> None:
        if len(shape) < 2:
            return
        k = self.integer(0, len(shape) - 2)
        new = (*shape[:k], shape[k] * shape[k + 1], *shape[k + 2 :])
        self.emit("Reshape", [x, self.sizes(x, new)], new)

    def divide_axis(self, x: str, shape: Shape) -> None:
        k = self.axis(shape) - 1
        factors = [f for f in range(1, shape[k] + 1) if shape[k] % f == 0]
        if len(shape) > 4:
            return
        f = self.pick(factors)
        new = (*shape[:k], f, shape[k] // f, *shape[k + 1 :])
        self.emit("Reshape", [x, self.sizes(x, new)], new)

    def transpose(self, x: str, shape: Shape) -> None:
        order = self.draw(st.permutations(range(len(shape))))
        new = tuple(shape[k] for k in order)
        self.emit("Transpose", [x], new, perm=[0, *(k + 1 for k in order)])

    def per_channel(self, x: str, shape: Shape) -> None:
        k = self.integer(0, len(shape) - 1)
        vector = len(shape) == 1
        w = self.bias(*shape) if vector else self.weight(shape[k], *[1] * (len(shape) - 1 - k))
        op, clean = self.pick(("Add", "Mul")), x in self.clean
        inputs = [x, w] if self.integer(0, 1) else [w, x]
        self.emit(op, inputs, shape, clean=clean and (op == "Mul" or vector))

    def reduce(self, x: str, shape: Shape) -> None:
        k, keep = self.axis(shape), self.integer(0, 1)
        if (len(shape) < 2 and not keep) or not self.sums(x):
            return
        new = (*shape[: k - 1], *[1] * keep, *shape[k:])
        op = self.pick(("ReduceSum", "ReduceMean", "ReduceMax", "ReduceL2"))
        self.emit(op, [x, self.ints(k)], new, keepdims=keep)

    def pad(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        # More than 1 can be more than onnxruntime 1.31 folds into a pooling of 2 without an error.
        before, after, rank = self.integer(0, 1), self.integer(0, 1), len(shape) + 1
        pads = [0] * 2 * rank
        pads[k], pads[rank + k] = before, after
        new = (*shape[: k - 1], shape[k - 1] + before + after, *shape[k:])
        self.emit("Pad", [x, self.ints(*pads)], new)

    def tile(self, x: str, shape: Shape) -> None:
        k = self.axis(shape)
        if prod(shape) * 2 > LARGEST:
            return
        repeats = [1] * (len(shape) + 1)
        repeats[k] = 2
        new = (*shape[: k - 1], 2 * shape[k - 1], *shape[k:])
        self.emit("Tile", [x, self.ints(*repeats)], new)

    def softmax(self, x: str, shape: Shape) -> None:
        self.emit("Softmax", [x], shape, clean=False, axis=self.axis(shape))

    def layer_norm(self, x: str, shape: Shape) -> None:
        n = shape[-1]
        self.emit("LayerNormalization", [x, self.weight(n), self.weight(n)], shape, clean=False)

    def quantise(self, x: str, shape: Shape) -> None:
        scale = self.constant(np.array(0.05, "f4"))
        zero = self.constant(np.array(self.pick((0, 3)), np.int8))
        q = self.emit("QuantizeLinear", [x, scale, zero], None)
        self.emit("DequantizeLinear", [q, scale, zero], shape)

    def gram(self, x: str, shape: Shape) -> None:
        """A value times itself, transposed."""
        if len(shape) < 2 or not self.sums(x):
            return
        rank = len(shape) + 1
        order = [*range(rank - 2), rank - 1, rank - 2]
        t = self.emit("Transpose", [x], None, perm=order)
        flip = self.integer(0, 1)
        out = (*shape[:-2], shape[-1], shape[-1]) if flip else (*shape[:-1], shape[-2])
        y = self.emit("MatMul", [t, x] if flip else [x, t], None)
        scale = self.constant(np.array(0.1, "f4"))
        self.emit("Mul", [y, scale], out)

    def attention(self, x: str, shape: Shape) -> None:
        """Queries, keys and values of two heads."""
        t, n = shape
        q, k, v = (self.emit("MatMul", [x, self.weight(n, 8, fan=n)], None) for _ in range(3))
        heads = self.sizes(x, (t, 2, 4))
        q, k, v = (self.emit("Reshape", [y, heads], None) for y in (q, k, v))
        q, v = (self.emit("Transpose", [y], None, perm=[0, 2, 1, 3]) for y in (q, v))
        k = self.emit("Transpose", [k], None, perm=[0, 2, 3, 1])
        p = self.emit("Softmax", [self.emit("MatMul", [q, k], None)], None, axis=-1)
        o = self.emit("MatMul", [p, v], None, clean=x in self.clean)
        o = self.emit("Transpose", [o], None, perm=[0, 2, 1, 3])
        self.emit("Reshape", [o, self.sizes(x, (t, 8))], (t, 8))

    def recurrent(self, x: str, shape: Shape) -> None:
        """A layer over the sequence, in either direction or both."""
        t, n = shape
        op, gates = self.pick((("LSTM", 4), ("GRU", 3), ("RNN", 1)))
        d, h = self.integer(1, 2), self.pick((4, 6))
        x = self.emit("Transpose", [x], None, perm=[1, 0, 2])
        w, r, b = (
            self.weight(d, gates * h, n, fan=n),
            self.weight(d, gates * h, h, fan=h),
            self.weight(d, 2 * gates * h),
        )
        direction = "bidirectional" if d == 2 else self.pick(("forward", "reverse"))
        y = self.emit(op, [x, w, r, b], None, clean=True, hidden_size=h, direction=direction)
        y = self.emit("Transpose", [y], None, perm=[2, 0, 1, 3])
        self.emit("Reshape", [y, self.ints(0, 0, d * h)], (t, d * h))

    def condition(self, x: str, shape: Shape) -> None:
        """An If whose branches read the value.

        The sum that decides is not held against 0: where a value and its negative are joined rounding alone would.
        """
        if not self.sums(x):
            return
        total = self.emit("ReduceSum", [x], None, keepdims=0)
        which = self.emit("Greater", [total, self.constant(np.array(0.1, "f4"))], None)
        self.count += 1
        branches = {}
        for branch, op in (("then", "Relu"), ("else", "Neg")):
            name = f"{branch}{self.count}"
            info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            node = helper.make_node(op, [x], [name])
            branches[f"{branch}_branch"] = helper.make_graph([node], name, [], [info])
        self.emit("If", [which], shape, clean=x in self.clean, **branches)

    def batch_norm(self, x: str, shape: Shape) -> None:
        c = shape[0]
        inputs = [x, self.weight(c), self.weight(c), self.weight(c)]
        variance = self.constant(self.rng.uniform(0.5, 2, c).astype("f4"))
        self.emit("BatchNormalization", [*inputs, variance], shape, clean=False)

    def instance_norm(self, x: str, shape: Shape) -> None:
        if prod(shape[1:]) > 1:
            inputs = [x, self.weight(shape[0]), self.bias(shape[0])]
            self.emit("InstanceNormalization", inputs, shape, clean=True)

    def pool(self, x: str, shape: Shape) -> None:
        c, h, w = shape
        op = self.pick(("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"))
        if op.startswith("Global"):
            self.emit(op, [x], (c, 1, 1))
        elif min(h, w) >= 2:
            self.emit(op, [x], (c, h - 1, w - 1), kernel_shape=[2, 2])

    def squeeze_excite(self, x: str, shape: Shape) -> None:
        c = shape[0]
        p = self.emit("GlobalAveragePool", [x], None)
        a = self.emit("Conv", [p, self.weight(4, c, 1, 1, fan=c)], None)
        b = self.emit("Conv", [self.emit("Relu", [a], None), self.weight(c, 4, 1, 1, fan=4)], None)
        self.emit("Mul", [x, self.emit("HardSigmoid", [b], None)], shape)

    def depth_to_space(self, x: str, shape: Shape) -> None:
        c, h, w = shape
        if c % 4 == 0:
            mode = self.pick(("DCR", "CRD"))
            self.emit("DepthToSpace", [x], (c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)

    def space_to_depth(self, x: str, shape: Shape) -> None:
        c, h, w = shape
        if h % 2 == w % 2 == 0 and c <= 8:
            self.emit("SpaceToDepth", [x], (4 * c, h // 2, w // 2), blocksize=2)

    def resize(self, x: str, shape: Shape) -> None:
        c, h, w = shape
        if c * h * w * 4 <= LARGEST:
            scales = self.constant(np.array([1, 1, 2, 2], "f4"))
            self.emit("Resize", [x, "", scales], (c, 2 * h, 2 * w), mode="nearest")

    def shuffle(self, x: str, shape: Shape) -> None:
        """Channels of two groups, interleaved."""
        c, h, w = shape
        if c % 2:
            return
        a = self.emit("Reshape", [x, self.sizes(x, (2, c // 2, h, w))], None)
        b = self.emit("Transpose", [a], None, perm=[0, 2, 1, 3, 4])
        self.emit("Reshape", [b, self.sizes(x, shape)], shape)
