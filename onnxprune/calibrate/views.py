"""Constant operands, read and written through the layout ops between a stored tensor and the node that uses it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.graph import Weight, constant, replace
from onnxprune.graph.external import read as read_tensor

__all__ = ["View", "restored", "store", "view_of"]

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE, ir.DataType.BFLOAT16)
RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class View:
    """A constant as a node reads it.

    Attributes:
        source: The stored constant: an initializer, or the output of a Constant node.
        steps: Between it and the node: new shapes (of reshapes) and permutations, in order.
        shape: As the node sees it.
        shared: Whether more than this one node reads it.
    """

    source: ir.Value
    steps: tuple[tuple[str, tuple[int, ...]], ...]
    shape: tuple[int, ...]
    shared: bool

    def read(self) -> np.ndarray:
        """The numbers as the node sees them; may be read-only."""
        tensor = constant(self.source)
        assert tensor is not None
        array = read_tensor(tensor)
        for kind, sizes in self.steps:
            array = array.reshape(sizes) if kind == "shape" else array.transpose(sizes)
        return array

    def unread(self, array: np.ndarray) -> np.ndarray:
        """What must be stored so that `read` gives this array."""
        tensor = constant(self.source)
        assert tensor is not None
        shapes = [tuple(tensor.shape.numpy())]
        for kind, sizes in self.steps:
            last = shapes[-1]
            shapes.append(sizes if kind == "shape" else tuple(last[k] for k in sizes))
        for (kind, sizes), before in zip(reversed(self.steps), reversed(shapes[:-1]), strict=True):
            array = array.reshape(before) if kind == "shape" else array.transpose(np.argsort(sizes))
        return np.ascontiguousarray(array)


def view_of(value: ir.Value) -> View | None:
    """The constant behind a value; None where it is computed from data, or is not of a float type."""
    steps: list[tuple[str, tuple[int, ...]]] = []
    shared, here = False, value
    while constant(here) is None:
        node = here.producer()
        if node is None or not node.inputs or node.inputs[0] is None or node.domain:
            return None
        if node.op_type == "Transpose":
            perm = node.attributes.get_ints("perm", None)
            rank = _rank(node.inputs[0])
            if perm is None and rank is None:
                return None
            steps.append(("perm", tuple(perm or reversed(range(rank or 0)))))
        elif node.op_type in RESHAPES:
            steps.append(("shape", ()))  # filled in below, once what is reshaped is known
            if (sizes := _new_shape(node)) is None:
                return None
            steps[-1] = ("shape", sizes)
        elif node.op_type != "Identity":
            return None
        shared |= len(here.uses()) > 1
        here = node.inputs[0]
    tensor = constant(here)
    assert tensor is not None
    if tensor.dtype not in FLOATS:
        return None
    shared |= len(here.uses()) > 1 or here.is_graph_output()
    shape = tuple(int(n) for n in tensor.shape.numpy())
    resolved: list[tuple[str, tuple[int, ...]]] = []
    for kind, sizes in reversed(steps):
        if kind == "perm":
            shape = tuple(shape[k] for k in sizes)
            resolved.append((kind, sizes))
        else:
            shape = _fitted(sizes, shape)
            resolved.append(("shape", shape))
    return View(here, tuple(resolved), shape, shared)


def store(view: View, array: np.ndarray) -> None:
    """Writes a weight's numbers, as its node reads them, behind its view; other readers see them too."""
    replace(_stored(view), view.unread(array))


@contextmanager
def restored(view: View) -> Iterator[None]:
    """Whatever is stored meanwhile, at the end the weight has its own tensor again, which may still be in its file."""
    tensor = constant(view.source)
    assert tensor is not None
    try:
        yield
    finally:
        replace(_stored(view), tensor)


def _stored(view: View) -> Weight:
    node = view.source.producer()
    graph = view.source.graph if node is None else node.graph
    assert isinstance(graph, ir.Graph)
    name, kind = view.source.name or "", "initializer" if node is None else "constant"
    return Weight(name, view.source, kind, graph)  # type: ignore[arg-type]


def _rank(value: ir.Value) -> int | None:
    tensor = constant(value)
    if tensor is not None:
        return len(tensor.shape)
    return None if value.shape is None else len(value.shape)


def _new_shape(node: ir.Node) -> tuple[int, ...] | None:
    """The shape that a reshape of a constant gives, from its constant shape operand or its annotated output."""
    if node.op_type == "Reshape" and node.inputs[1] is not None:
        tensor = constant(node.inputs[1])
        return None if tensor is None else tuple(int(n) for n in tensor.numpy().reshape(-1))
    shape = node.outputs[0].shape
    if shape is None or not shape.is_static():
        return None
    return tuple(int(n) for n in shape.numpy())


def _fitted(sizes: tuple[int, ...], shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without ONNX's 0, which copies a size, and -1, which is what is left."""
    copied = [shape[k] if n == 0 and k < len(shape) else n for k, n in enumerate(sizes)]
    rest = math.prod(n for n in copied if n != -1)
    return tuple(math.prod(shape) // max(rest, 1) if n == -1 else n for n in copied)
