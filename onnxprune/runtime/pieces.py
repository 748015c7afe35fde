"""Running a model whose weights do not fit into memory together.

The nodes, which ONNX keeps in topological order, are divided into consecutive pieces whose weights stay within a
budget. Each piece is a model of its own, from the values that are alive where it begins to those alive where it ends;
it is run on all inputs before the next one is made. Every weight is read once, and never more than a piece of them is
held. Large float weights enter as inputs, not as initializers: so onnxruntime neither copies nor repacks them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import external
from onnxprune.graph.flow import last_uses, read_values
from onnxprune.runtime.sessions import run, session

__all__ = [
    "LARGEST_WHOLE",
    "is_large",
    "outputs",
    "run_in_pieces",
]

LARGEST_WHOLE = 768 << 20
"""Bytes of weights up to which a model is run as a whole."""
PIECE = 192 << 20
"""Bytes of weights of a piece, unless a single node needs more."""
FED = 1 << 20
"""Bytes from which on a weight is fed as an input."""

Feed = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Piece:
    """Consecutive nodes, the values they take from before them and give to what follows, and their weights."""

    nodes: tuple[ir.Node, ...]
    takes: tuple[ir.Value, ...]
    gives: tuple[ir.Value, ...]
    weights: tuple[ir.Value, ...]


def is_large(model: ir.Model) -> bool:
    """Whether the model has so many bytes of weights that it is run in pieces."""
    held = (value.const_value for value in model.graph.initializers.values())
    return sum(tensor.nbytes for tensor in held if tensor is not None) > LARGEST_WHOLE


def outputs(
    model: ir.Model,
    feeds: Sequence[Feed],
    providers: Sequence[str] = ("cpu",),
    *,
    threads: int | None = None,
    optimize: bool = True,
) -> list[list[Any]]:
    """The outputs of a model for each feed; in pieces where it is large.

    Args:
        model: The model.
        feeds: Input name to array, a mapping for each run.
        providers: onnxruntime providers by name, in order of preference.
        threads: Threads within an operator; None leaves the choice to onnxruntime.
        optimize: Whether onnxruntime may fuse the nodes of a model that is not large.

    Raises:
        ModelError: onnxruntime refuses or does not run the model.
        ProviderError: A provider is not available.
    """
    if is_large(model):
        return run_in_pieces(model, feeds, providers, threads=threads)
    made = session(model, providers, threads=threads, optimize=optimize)
    return [run(made, feed) for feed in feeds]


def run_in_pieces(
    model: ir.Model,
    feeds: Sequence[Feed],
    providers: Sequence[str] = ("cpu",),
    *,
    budget: int = PIECE,
    threads: int | None = None,
) -> list[list[Any]]:
    """The outputs of a model for each feed, with about `budget` bytes of its weights in memory at a time.

    Args:
        model: The model.
        feeds: Input name to array, a mapping for each run.
        providers: onnxruntime providers by name, in order of preference.
        budget: Bytes of weights of a piece, unless a single node needs more.
        threads: Threads within an operator; None leaves the choice to onnxruntime.

    Raises:
        ModelError: onnxruntime refuses or does not run a piece, or something other than tensors goes from piece to
            piece.
    """
    alive: list[dict[ir.Value, np.ndarray]] = [_arrays(model, feed) for feed in feeds]
    last = last_uses(model.graph)
    position = 0
    for piece in _pieces(model.graph, budget, last):
        position += len(piece.nodes)
        _run_piece(model, piece, alive, providers, threads)
        for values in alive:
            for value in [value for value in values if last[value] < position]:
                del values[value]
    return [[values[value] for value in model.graph.outputs] for values in alive]


def _arrays(model: ir.Model, feed: Feed) -> dict[ir.Value, np.ndarray]:
    by_name = {value.name: value for value in model.graph.inputs}
    unknown = [name for name in feed if name not in by_name]
    if unknown:
        raise ModelError(f"onnxruntime cannot run the model: it has no input {unknown[0]!r}")
    return {by_name[name]: array for name, array in feed.items()}


def _pieces(graph: ir.Graph, budget: int, last: Mapping[ir.Value, int]) -> Iterator[_Piece]:
    nodes: list[ir.Node] = []
    held: dict[ir.Value, int] = {}
    everything = list(graph)
    for position, node in enumerate(everything):
        new = {
            value: value.const_value.nbytes
            for value in read_values(node)
            if value.is_initializer() and value.const_value is not None
        }
        if nodes and sum({**held, **new}.values()) > budget and any(v not in held for v in new):
            yield _piece(graph, nodes, held, position, last)
            nodes, held = [], {}
        nodes.append(node)
        held.update(new)
    if nodes:
        yield _piece(graph, nodes, held, len(everything), last)


def _piece(
    graph: ir.Graph,
    nodes: Sequence[ir.Node],
    held: Mapping[ir.Value, int],
    end: int,
    last: Mapping[ir.Value, int],
) -> _Piece:
    made = {value for node in nodes for value in node.outputs}
    read = dict.fromkeys(value for node in nodes for value in read_values(node))
    return _Piece(
        nodes=tuple(nodes),
        takes=tuple(value for value in read if value not in made and value not in held),
        gives=tuple(v for node in nodes for v in node.outputs if v.name and last[v] >= end),
        weights=tuple(held),
    )


def _run_piece(
    model: ir.Model,
    piece: _Piece,
    alive: list[dict[ir.Value, np.ndarray]],
    providers: Sequence[str],
    threads: int | None,
) -> None:
    """Runs a piece for every feed, and adds what it gives to what is alive."""
    if not piece.gives:
        return
    fed = {value: _contents(value) for value in piece.weights if _is_fed(value)}
    kept = [value for value in piece.weights if value not in fed]
    takes = [*piece.takes, *fed]
    view = ir.GraphView(
        takes,
        piece.gives,
        nodes=piece.nodes,
        initializers=kept,
        opset_imports=model.graph.opset_imports,
        name=model.graph.name,
    )
    graph = view.clone()
    for value, copy in zip(takes, graph.inputs, strict=True):
        array = fed[value] if value in fed else alive[0][value]
        copy.const_value = None
        copy.type, copy.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), None
    functions = [function.clone() for function in model.functions.values()]
    made = session(
        ir.Model(graph, ir_version=max(model.ir_version, 4), functions=functions),
        providers,
        threads=threads,
    )
    weights = {value.name: array for value, array in fed.items()}
    for values in alive:
        feed = {value.name: values[value] for value in piece.takes}
        for value, result in zip(piece.gives, run(made, feed | weights), strict=True):  # type: ignore[arg-type]
            if not isinstance(result, np.ndarray):
                raise ModelError(
                    f"{value.name!r} is no tensor; a model of this size with such values cannot be run piece by piece"
                )
            values[value] = result


def _is_fed(value: ir.Value) -> bool:
    """Whether a weight enters as an input: a large float that only standard operators read."""
    tensor = value.const_value
    assert tensor is not None
    return (
        tensor.nbytes >= FED
        and tensor.dtype in (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE)
        and not any(node.domain for node, _ in value.uses())
    )


def _contents(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return external.read(value.const_value)
