"""The graph of a random model while it grows: its values, its weights, and how nodes are added."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
"""Of all axes but the batch."""


class Graph:
    """The graph so far."""

    def __init__(self, draw: st.DrawFn, neutral: bool) -> None:
        self.draw, self.neutral = draw, neutral
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(draw(st.integers(0, 99)))
        self.count = 0
        self.quantised = draw(st.booleans())
        image = draw(st.booleans())
        self.input: Shape = (3, 4, 4) if image else (6, 4)
        self.shapes: dict[str, Shape] = {"x": self.input}
        self.read: set[str] = set()
        self.clean = {"x"}
        self.own: set[str] = set()

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, among: Any) -> Any:
        return self.draw(st.sampled_from(list(among)))

    def weight(self, *shape: int, fan: int = 1) -> str:
        """A new tensor, now and then one that there is already."""
        known = [n for n, w in self.weights.items() if w.shape == shape and n not in self.own]
        if known and self.integer(0, 3) == 0:
            return self.pick(known)
        return self.constant(self.rng.normal(0, 1 / sqrt(fan), shape).astype("f4"), "w")

    def bias(self, n: int) -> str:
        """A vector of its own. A plan cannot name one use of a shared one, to be zero for sums without weights."""
        name = self.constant(self.rng.normal(0, 1, n).astype("f4"), "b")
        self.own.add(name)
        return name

    def constant(self, array: np.ndarray, prefix: str = "c") -> str:
        self.count += 1
        name = f"{prefix}{self.count}"
        self.weights[name] = np.asarray(array)
        if prefix == "c" and self.weights[name].dtype != np.float32:
            self.own.add(name)
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def emit(
        self,
        op: str,
        inputs: list[str],
        shape: Shape | None,
        clean: bool | None = None,
        **attributes: Any,
    ) -> str:
        """A node of one output; with a shape, a value that later ops may read.

        It is clean (zero wherever an index is masked) if said so; otherwise if its first input is.
        """
        domain = "com.microsoft" if op == "Gelu" else ""
        self.count += 1
        name = f"v{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [name], domain=domain, **attributes))
        self.read.update(inputs)
        if inputs[0] in self.clean if clean is None else clean:
            self.clean.add(name)
        if shape is not None:
            self.shapes[name] = shape
        return name

    def sums(self, x: str) -> bool:
        """Whether a value may be summed over without weights."""
        return x in self.clean or not self.neutral

    def sizes(self, name: str, shape: Shape) -> str:
        """What a Reshape of a value is given: literal sizes, or the batch taken from Shape."""
        how = self.integer(0, 2)
        if how < 2:
            return self.ints(-1 if how else 0, *shape)
        all_ = self.emit("Shape", [name], None)
        batch = self.emit("Slice", [all_, self.ints(0), self.ints(1)], None)
        return self.emit("Concat", [batch, self.ints(*shape)], None, axis=0)

    def axis(self, shape: Shape) -> int:
        """An axis that is not the batch, counted from 1."""
        return self.integer(1, len(shape))

    def finish(self) -> onnx.ModelProto:
        """The model: what nobody reads goes through a last linear layer."""
        outputs = []
        for name, shape in list(self.shapes.items()):
            if name in self.read:
                continue
            if len(shape) == 3:
                w = self.weight(2, shape[0], 1, 1, fan=shape[0])
                out = self.emit("Conv", [name, w], None)
                full: tuple[str | int, ...] = ("N", 2, *shape[1:])
            else:
                out = self.emit("MatMul", [name, self.weight(shape[-1], 3, fan=shape[-1])], None)
                full = ("N", *shape[:-1], 3)
            outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, full))
        used = {name for node in self.nodes for name in node.input}
        graph = helper.make_graph(
            self.nodes,
            "grown",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("N", *self.input))],
            outputs,
            [numpy_helper.from_array(a, n) for n, a in self.weights.items() if n in used],
        )
        opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)
