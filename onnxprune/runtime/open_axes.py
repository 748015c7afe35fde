"""The open axes of a model's inputs, by the symbols that stand for their sizes.

An axis without a size has a name, which it may share with others, or is a symbol of its own. Exporters also write
expressions, `past_sequence_length + 1` or `2*s1`: those have the size that follows from their symbols.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["OpenAxis", "Shapes", "doubled", "graph_inputs", "open_axes", "shaped", "symbol_sizes"]

Shapes = Mapping[str, Sequence[int]]
MOST_ALONE = 8
"""Symbols that are doubled alone, at most."""


@dataclass(frozen=True)
class OpenAxis:
    """What is known of an open axis, or of several whose sizes one symbol stands for.

    Attributes:
        first: It comes first, as batches do.
        channel: It is the second of four or more.
        image: It is one of four or more.
        whole: What it belongs to holds whole numbers, as tokens are.
    """

    first: bool
    channel: bool
    image: bool
    whole: bool


def graph_inputs(model: ir.Model) -> list[ir.Value]:
    """The inputs that a caller feeds: those that are no initializers."""
    return [value for value in model.graph.inputs if value.const_value is None]


def open_axes(model: ir.Model, given: Shapes) -> dict[str, OpenAxis]:
    """The symbols in the shapes of the inputs, those of the inputs in `given` left out."""
    found: dict[str, OpenAxis] = {}
    for alone in (True, False):
        for value in graph_inputs(model):
            shape = value.shape if value.shape is not None and value.name not in given else ()
            for k in range(len(shape)):
                size, image = _size(value, k), len(shape) >= 4
                whole = value.dtype is not None and not value.dtype.is_floating_point()
                for symbol in _symbols(size):
                    if isinstance(size, ast.Name) == alone and symbol not in found:
                        found[symbol] = OpenAxis(k == 0, image and k == 1, image, whole)
    return found


def shaped(model: ir.Model, given: Shapes, sizes: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs, from the sizes that symbols stand for."""
    found = {}
    for value in graph_inputs(model):
        name = value.name or ""
        axes = range(len(value.shape)) if value.shape is not None else ()
        found[name] = tuple(
            given[name] if name in given else (_evaluated(_size(value, k), sizes) for k in axes)
        )
    return found


def symbol_sizes(model: ir.Model, shapes: Shapes) -> dict[str, int]:
    """The size that each symbol stands for, where the inputs have these shapes; 1 where it only is in expressions."""
    found: dict[str, int] = {}
    for value in graph_inputs(model):
        for k, n in enumerate(shapes[value.name or ""] if value.shape is not None else ()):
            size = _size(value, k)
            for symbol in _symbols(size):
                if isinstance(size, ast.Name):
                    found[symbol] = n
                else:
                    found.setdefault(symbol, 1)
    return found


def doubled(model: ir.Model, shapes: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """The same with twice the size on the open axes: on all, on those that come first, on the others, on each alone."""
    axes, sizes = open_axes(model, {}), symbol_sizes(model, shapes)
    firsts = [symbol for symbol, axis in axes.items() if axis.first]
    others = [symbol for symbol in axes if symbol not in firsts]
    alone = [[symbol] for symbol in list(axes)[:MOST_ALONE]]
    tried: list[Shapes] = [dict(shapes)]
    for which in ([*axes], firsts, others, *alone):
        found = shaped(model, {}, sizes | {symbol: 2 * sizes[symbol] for symbol in which})
        if found not in tried:
            tried.append(found)
            yield found


def _size(value: ir.Value, k: int) -> ast.expr:
    """What is declared of the size of an axis: a number, a symbol, or an expression of both."""
    assert value.shape is not None
    declared = value.shape[k]
    if isinstance(declared, int):
        return ast.Constant(declared) if declared > 0 else ast.Name(f"{value.name}[{k}]")
    text = declared.value or f"{value.name}[{k}]"
    try:
        size = ast.parse(text, mode="eval").body
        return size if _symbols(size) and _evaluated(size, {}) > 0 else ast.Name(text)
    except (SyntaxError, ValueError):
        return ast.Name(text)


def _symbols(size: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(size) if isinstance(node, ast.Name)]


def _evaluated(size: ast.expr, sizes: Mapping[str, int]) -> int:
    """A size; symbols that nothing is known of stand for 1.

    Raises:
        ValueError: It is no sum or product of numbers and symbols.
    """
    match size:
        case ast.Constant(int(number)):
            return number
        case ast.Name(symbol):
            return sizes.get(symbol, 1)
        case ast.BinOp(left, ast.Add(), right):
            return _evaluated(left, sizes) + _evaluated(right, sizes)
        case ast.BinOp(left, ast.Mult(), right):
            return _evaluated(left, sizes) * _evaluated(right, sizes)
    raise ValueError("no sum or product")
