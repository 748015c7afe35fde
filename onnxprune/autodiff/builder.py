"""Writing ONNX nodes as formulas.

`Ops` appends nodes to a graph and hands back `Tensor`s; a `Tensor` is an `ir.Value` that knows its
builder, so arithmetic reads as in the mathematics and Python numbers take the element type of their
neighbour:

    op.Exp(-x * x) * (2 / math.sqrt(math.pi))

Lists and tuples of integers and numpy arrays become initializers (identical ones once). Every op
has its signature of opset 18 or later: axes, shapes and pads are inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Ops", "Shape", "Tensor"]

Shape = tuple[int | None, ...]
"""Size of every axis; None where the size changes from run to run (a dynamic batch, say)."""

_INT64 = {"Shape", "Size", "NonZero", "ArgMax", "ArgMin"}
_BOOL = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "IsNaN"}
_TYPED_LIKE_INPUT = {"Where": 1, "OneHot": 2}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A value of the graph that can be computed with.

    Attributes:
        value: The ONNX value.
        ops: The builder that writes the nodes of its arithmetic.
    """

    value: ir.Value
    ops: Ops

    @property
    def dtype(self) -> ir.DataType:
        """Element type."""
        if self.value.dtype is None:
            raise ValueError(f"element type of {self.value.name!r} is unknown")
        return self.value.dtype

    @property
    def shape(self) -> Shape:
        """Sizes of the axes, None where dynamic."""
        if self.value.shape is None:
            raise ValueError(f"shape of {self.value.name!r} is unknown")
        return tuple(dim if isinstance(dim, int) else None for dim in self.value.shape.dims)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def constant(self) -> np.ndarray[Any, Any] | None:
        """The array of an initializer or a Constant node, None of anything computed."""
        tensor = ir.convenience.get_const_tensor(self.value)
        return None if tensor is None else tensor.numpy()

    def __neg__(self) -> Tensor:
        return self.ops.Neg(self)

    def __add__(self, other: Tensor | float) -> Tensor:
        return self.ops.Add(self, other)

    def __radd__(self, other: float) -> Tensor:
        return self.ops.Add(other, self)

    def __sub__(self, other: Tensor | float) -> Tensor:
        return self.ops.Sub(self, other)

    def __rsub__(self, other: float) -> Tensor:
        return self.ops.Sub(other, self)

    def __mul__(self, other: Tensor | float) -> Tensor:
        return self.ops.Mul(self, other)

    def __rmul__(self, other: float) -> Tensor:
        return self.ops.Mul(other, self)

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return self.ops.Div(self, other)

    def __rtruediv__(self, other: float) -> Tensor:
        return self.ops.Div(other, self)

    def __gt__(self, other: Tensor | float) -> Tensor:
        return self.ops.Greater(self, other)

    def __lt__(self, other: Tensor | float) -> Tensor:
        return self.ops.Less(self, other)

    def __ge__(self, other: Tensor | float) -> Tensor:
        return self.ops.GreaterOrEqual(self, other)

    def __le__(self, other: Tensor | float) -> Tensor:
        return self.ops.LessOrEqual(self, other)


Argument = Tensor | float | Sequence[int] | np.ndarray[Any, Any] | None
"""What a node's input may be written as; None is an absent optional input."""


class Ops:
    """Appends nodes to one graph: `op.MatMul(a, b)`, `op.Softmax(x, axis=-1)`.

    Args:
        graph: Where nodes and initializers go.
        prefix: What the names of all of them start with; no name of the graph may start with it.
    """

    def __init__(self, graph: ir.Graph, prefix: str) -> None:
        self.graph = graph
        self.prefix = prefix
        self._count = 0
        self._constants: dict[tuple[Any, ...], Tensor] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Tensor]:
        if not op_type[0].isupper():
            raise AttributeError(op_type)

        def write(*arguments: Argument, **attributes: Any) -> Tensor:
            return self.call(op_type, *arguments, **attributes)[0]

        return write

    def call(
        self,
        op_type: str,
        *arguments: Argument,
        outputs: int = 1,
        domain: str = "",
        **attributes: Any,
    ) -> tuple[Tensor, ...]:
        """Write one node; all its outputs have the element type that the first of them has.

        Args:
            op_type: The op.
            *arguments: Its inputs; numbers take the element type of the first tensor among them.
            outputs: How many outputs it has.
            domain: The op's domain.
            **attributes: Its attributes.

        Returns:
            The outputs.
        """
        inputs = self._inputs(op_type, arguments)
        while inputs and inputs[-1] is None:  # named nothing, it crashes fusions of onnxruntime
            inputs.pop()
        name = self.unique_name(op_type)
        node = ir.Node(
            domain,
            op_type,
            [None if tensor is None else tensor.value for tensor in inputs],
            ir.convenience.convert_attributes(
                {key: value for key, value in attributes.items() if value is not None}
            ),
            num_outputs=outputs,
            name=name,
        )
        dtype = _result_type(op_type, inputs, attributes)
        for index, value in enumerate(node.outputs):
            value.name = name if index == 0 else f"{name}.{index}"
            value.type = None if dtype is None else ir.TensorType(dtype)
        self.graph.append(node)
        return tuple(Tensor(value, self) for value in node.outputs)

    def unique_name(self, stem: str) -> str:
        """A name that nothing else in the graph has."""
        self._count += 1
        return f"{self.prefix}{stem}_{self._count}"

    def constant(self, array: np.ndarray[Any, Any], dtype: ir.DataType | None = None) -> Tensor:
        """An initializer holding `array`, of element type `dtype` if given."""
        if dtype is not None:
            array = array.astype(dtype.numpy())
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = self.initializer("const", ir.tensor(array))
        return self._constants[key]

    def initializer(self, stem: str, tensor: ir.TensorProtocol) -> Tensor:
        """A new initializer."""
        value = ir.Value(
            name=self.unique_name(stem),
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.numpy().shape),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return Tensor(value, self)

    def shape_of(self, x: Tensor) -> Tensor:
        """The sizes of `x`, 1-D int64: a constant where they are static, else taken at run time."""
        shape = x.shape
        if None in shape:
            return self.Shape(x)
        return self.constant(np.array(shape, np.int64))

    def reshape(self, x: Tensor, shape: Sequence[int]) -> Tensor:
        """`x` with the given sizes; one of them may be -1."""
        return self.Reshape(x, list(shape))

    def reshape_like(self, x: Tensor, like: Tensor) -> Tensor:
        """`x` in the shape of `like`, which has as many elements."""
        if like.shape.count(None) == 1 and 0 not in like.shape:
            return self.Reshape(x, [-1 if size is None else size for size in like.shape])
        return self.Reshape(x, self.shape_of(like), allowzero=1)

    def reshape_before(self, x: Tensor, sizes: Sequence[int], like: Tensor, axis: int) -> Tensor:
        """`x` with the given sizes (one may be -1), then those of `like` from `axis` on."""
        tail = like.shape[axis:]
        if None not in tail:
            return self.Reshape(x, [*sizes, *(size for size in tail if size is not None)])
        kept = self.Slice(self.Shape(like), [axis], [like.rank], [0])
        return self.Reshape(x, self.Concat(self.constant(np.array(sizes, np.int64)), kept, axis=0))

    def zeros_like(self, x: Tensor) -> Tensor:
        """Zeros in the shape and element type of `x`."""
        return self.Expand(self.constant(np.zeros(()), x.dtype), self.shape_of(x))

    def sum(self, x: Tensor, axes: Sequence[int], *, keepdims: bool = False) -> Tensor:
        """The sum of `x` over `axes`; `x` itself if there are none."""
        return self.ReduceSum(x, list(axes), keepdims=int(keepdims)) if axes else x

    def unbroadcast(self, gradient: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Sum a gradient in the shape of `y` over the axes along which `x` was broadcast to it."""
        extra = y.rank - x.rank
        stretched = [
            extra + axis
            for axis, size in enumerate(x.shape)
            if size == 1 and y.shape[extra + axis] != 1
        ]
        summed = self.sum(gradient, [*range(extra), *stretched])
        return self.reshape_like(summed, x) if stretched else summed

    def size(self, x: Tensor, axes: Sequence[int] | None, dtype: ir.DataType) -> Tensor:
        """How many elements `x` has along `axes` (None: all), a scalar of type `dtype`."""
        axes = range(x.rank) if axes is None else axes
        sizes = [x.shape[axis] for axis in axes]
        if None not in sizes:
            return self.constant(np.array(np.prod([s for s in sizes if s is not None])), dtype)
        picked = self.Gather(self.Shape(x), [axis % x.rank for axis in axes])
        return self.Cast(self.ReduceProd(picked, keepdims=0), to=int(dtype))

    def cast(self, x: Tensor, dtype: ir.DataType) -> Tensor:
        """`x` as `dtype`; itself if it is that already."""
        return x if x.dtype == dtype else self.Cast(x, to=int(dtype))

    def one_hot(self, indices: Tensor, depth: Tensor, axis: int, dtype: ir.DataType) -> Tensor:
        """1 at the indices, 0 elsewhere; onnxruntime only makes some types."""
        ends = self.constant(np.array([0.0, 1.0]), ir.DataType.FLOAT)
        return self.cast(self.OneHot(indices, depth, ends, axis=axis), dtype)

    def where(self, condition: Tensor, x: Tensor, y: Tensor | float) -> Tensor:
        """`x` where the condition holds, else `y`."""
        return self.Where(condition, x, y)

    def transpose(self, x: Tensor, perm: Sequence[int]) -> Tensor:
        """`x` with its axes in the order `perm`."""
        return x if list(perm) == sorted(perm) else self.Transpose(x, perm=list(perm))

    def _inputs(self, op_type: str, arguments: Sequence[Argument]) -> list[Tensor | None]:
        tensors = [a for a in arguments if isinstance(a, Tensor)]
        if op_type == "Where":  # its condition is no neighbour in type
            tensors = [a for a in arguments[1:] if isinstance(a, Tensor)]
        return [self._input(a, tensors[0].value.dtype if tensors else None) for a in arguments]

    def _input(self, argument: Argument, neighbour: ir.DataType | None) -> Tensor | None:
        if argument is None or isinstance(argument, Tensor):
            return argument
        if isinstance(argument, np.ndarray):
            return self.constant(argument)
        if isinstance(argument, list | tuple | range):
            return self.constant(np.array(argument, np.int64))
        return self.constant(np.array(argument), neighbour)


def _result_type(
    op_type: str, inputs: Sequence[Tensor | None], attributes: dict[str, Any]
) -> ir.DataType | None:
    if op_type == "Cast":
        return ir.DataType(attributes["to"])
    if op_type in _INT64:
        return ir.DataType.INT64
    if op_type in _BOOL:
        return ir.DataType.BOOL
    source = inputs[_TYPED_LIKE_INPUT.get(op_type, 0)]
    assert source is not None, op_type
    return source.value.dtype
