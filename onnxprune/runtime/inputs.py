"""Inputs that a model really runs on, found by trying.

A file says the rank and type of an input, and often not much of its shape. What is open is tried from a short list of
usual sizes until onnxruntime runs the model; the batch stays 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import combinations

import numpy as np
import onnx_ir as ir

from onnxprune.errors import DataError, ModelError
from onnxprune.runtime.asked_sizes import asked_sizes
from onnxprune.runtime.open_axes import (
    OpenAxis,
    Shapes,
    graph_inputs,
    open_axes,
    shaped,
    symbol_sizes,
)
from onnxprune.runtime.sessions import run, session

__all__ = [
    "Shapes",
    "candidate_shapes",
    "graph_inputs",
    "random_feed",
    "random_inputs",
    "running_shapes",
    "varied_shapes",
]

SPATIAL = (64, 224, 256, 320, 416, 512, 640, 960, 128, 32, 28, 16, 8)
"""Tried for open axes of inputs of four and more axes."""
SEQUENCE = (8, 16, 32, 64, 100, 128, 256, 512, 576, 1024, 1536, 2048)
"""Tried for open axes of inputs of up to three axes."""
SECOND = 16000
"""Tried there too: a second of sound. No text is as long, and attention would square it."""
MOST_ELEMENTS = 1 << 24
"""Shapes with more elements in all are not tried."""
MOST_OPEN = 5
"""With more open axes than this, not every combination is tried."""
CHANNELS = (3, 1)
"""Tried for an open second axis of inputs of four and more axes, after the sizes of the others."""


def random_inputs(
    model: ir.Model, seed: int = 0, shapes: Shapes | None = None
) -> dict[str, np.ndarray]:
    """Seeded inputs that the model runs on.

    Args:
        model: Any model.
        seed: The same seed gives the same arrays.
        shapes: Shapes for some inputs, by name; others are found by trying.

    Raises:
        ModelError: onnxruntime runs it on none of the shapes tried.
    """
    return random_feed(model, next(running_shapes(model, shapes)), seed)


def running_shapes(
    model: ir.Model,
    shapes: Shapes | None = None,
    attempt: Callable[[dict[str, np.ndarray]], object] | None = None,
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes of the inputs that onnxruntime runs the model on, at least one.

    Args:
        model: Any model.
        shapes: Shapes for some inputs, by name.
        attempt: Runs the model on a feed, and raises ModelError where that fails; by default in a session of its own.

    Raises:
        DataError: A shape given does not fit the model.
        ModelError: onnxruntime runs it on none of the shapes tried.
    """
    given = _checked(model, shapes or {})
    if attempt is None:
        attempt = partial(run, session(model, optimize=False))
    first: ModelError | None = None
    worked = False
    tried = 0
    for candidate in candidate_shapes(model, given):
        tried += 1
        try:
            attempt(random_feed(model, candidate, 0))
        except ModelError as error:
            first = first or error
            continue
        worked = True
        yield candidate
    if not worked:
        told = ", ".join(
            f"{name} {list(shape)}" for name, shape in next(_candidates(model, given)).items()
        )
        hint = (
            ""
            if tried == 1
            else " (and on other sizes); give the shapes with --shape NAME=1,3,224,224"
        )
        raise ModelError(f"{first} - with {told or 'no inputs'}{hint}") from first


def candidate_shapes(model: ir.Model, given: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """The shapes that are tried, each once; very large ones only where nothing else is possible."""
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for candidate in _candidates(model, given):
        key = tuple(candidate.values())
        elements = sum(math.prod(shape) for shape in key)
        if key not in tried and (not tried or elements <= MOST_ELEMENTS):
            tried.add(key)
            yield candidate


def varied_shapes(
    model: ir.Model, given: Shapes, found: Shapes
) -> Iterator[dict[str, tuple[int, ...]]]:
    """Shapes that a model may run on where it ran on `found`: one of the open axes has another usual size."""
    sizes = symbol_sizes(model, found)
    kept = {name: found[name] for name in given}
    for symbol, axis in sorted(open_axes(model, given).items(), key=lambda item: item[1].first):
        sound = () if axis.whole else (SECOND,)
        for n in (*SPATIAL, 1) if axis.image else (*SEQUENCE, *sound, 1):
            yield shaped(model, kept, sizes | {symbol: n})


def random_feed(model: ir.Model, shapes: Shapes, seed: int) -> dict[str, np.ndarray]:
    """Arrays of the given shapes: standard normal floats, integers 0 and 1, a fixed text."""
    rng = np.random.default_rng(seed)
    feed = {}
    for value in graph_inputs(model):
        shape = tuple(shapes[value.name or ""])
        dtype = value.dtype or ir.DataType.FLOAT
        if dtype == ir.DataType.STRING:
            feed[value.name or ""] = np.full(shape, "hello world", object)
        elif dtype.is_floating_point():
            feed[value.name or ""] = rng.standard_normal(shape).astype(dtype.numpy())
        else:
            feed[value.name or ""] = rng.integers(0, 2, shape).astype(dtype.numpy())
    return feed


def _checked(model: ir.Model, shapes: Shapes) -> Shapes:
    known = {value.name: value for value in graph_inputs(model)}
    for name, shape in shapes.items():
        if name not in known:
            raise DataError(
                f"the model has no input {name!r}; it has {', '.join(map(repr, known))}"
            )
        declared = known[name].shape
        if declared is not None and (
            len(declared) != len(shape)
            or any(
                isinstance(d, int) and d > 0 and d != n
                for d, n in zip(declared, shape, strict=True)
            )
        ):
            raise DataError(
                f"input {name!r} is declared as {declared}, the shape given is {list(shape)}"
            )
    return shapes


def _candidates(model: ir.Model, given: Shapes) -> Iterator[dict[str, tuple[int, ...]]]:
    """Every size for the open axes with first axes of 1; then, size by size, with any of the open axes of 1."""
    opened = open_axes(model, given)
    asked = asked_sizes(model)
    spatial, sequence, channels = (
        tuple(dict.fromkeys(each))
        for each in (
            (*SPATIAL, *asked, 1),
            (*SEQUENCE, *asked, SECOND, 1),
            (*CHANNELS, *asked),
        )
    )
    tries = max(len(spatial), len(sequence))
    sizes = [
        (spatial[min(k, len(spatial) - 1)], sequence[min(k, len(sequence) - 1)])
        for k in range(tries)
    ]
    usual = frozenset(symbol for symbol, axis in opened.items() if axis.first)
    for channel in channels:
        for image, other in sizes:
            yield _filled(model, given, opened, usual, (image, other, channel))
    if len(opened) > MOST_OPEN:
        return
    for image, other in sizes:
        for count in range(len(opened) + 1):
            for single in combinations(opened, count):
                yield _filled(model, given, opened, frozenset(single), (image, other, channels[0]))


def _filled(
    model: ir.Model,
    given: Shapes,
    opened: Mapping[str, OpenAxis],
    single: frozenset[str],
    sizes: tuple[int, int, int],
) -> dict[str, tuple[int, ...]]:
    """Sizes (of images, of sequences, of channels) for every open axis but those in `single`, which get 1."""
    spatial, sequence, channels = sizes

    def chosen(symbol: str, axis: OpenAxis) -> int:
        if symbol in single:
            return 1
        if axis.channel:
            return channels
        if axis.image:
            return spatial
        return SEQUENCE[-1] if axis.whole and sequence == SECOND else sequence

    return shaped(model, given, {symbol: chosen(symbol, axis) for symbol, axis in opened.items()})
