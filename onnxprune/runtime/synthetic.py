"""Samples made up for a model, where there are none: `--data synthetic`.

1. Images (four axes, 1 or 3 channels, NCHW or NHWC): noise whose amplitude falls as 1/f^a with the frequency, as in
   photographs (Field, "Relations between the statistics of natural images and the response properties of cortical
   cells", J. Opt. Soc. Am. A 4, 1987). Each image has its own a and contrast; its channels are much alike.
2. Integers that look up a table: any of its rows, equally often. Other integers and truth values: ones.
3. Other numbers: standard normal.

Nobody says how images were scaled for the model. Their mean and spread are read off it where it tells (`input_scale`).
Real samples are better: what is chosen and re-fitted on these holds for real inputs only as far as they are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph import constant, inline
from onnxprune.graph.cost import macs
from onnxprune.runtime.dataset import Dataset, affordable, make_dataset
from onnxprune.runtime.inputs import Shapes, graph_inputs, running_shapes
from onnxprune.runtime.measure import measure
from onnxprune.runtime.scale import input_scale
from onnxprune.runtime.sessions import run, session

__all__ = ["SAMPLES", "image_noise", "synthetic"]

SAMPLES = 200
"""How many there are at most, ..."""
FEWEST = 16
"""... and at least."""
WORK = 4 * 10**11
"""MACs of all of them in between, ..."""
NUMBERS = 1 << 26
"""... and numbers that they consist of: where a sample is large, it has much to tell."""
BATCHES = 4
"""Batches of a model that fixes theirs, at least: some are held aside, and of the others again."""
EXPONENTS = (0.8, 1.4)
"""Of 1/f^a, drawn for each image."""
CONTRAST = 0.35
"""Standard deviation of the logarithm of an image's contrast."""
ALIKE = 0.9
"""Share of the variance that the channels of an image have in common."""
SMALLEST_IMAGE = 8
TABLES = frozenset(("Gather", "GatherElements", "Embedding", "EmbedLayerNormalization"))
CARRYING = frozenset(("Cast", "Identity", "Reshape", "Unsqueeze", "Squeeze", "Clip", "Flatten"))

Array = np.ndarray


def synthetic(
    model: ir.Model, seed: int = 0, shapes: Shapes | None = None, count: int | None = None
) -> Dataset:
    """Made-up samples that the model runs on; the same seed gives the same ones.

    Args:
        model: Any model.
        seed: Of the noise.
        shapes: Shapes for some inputs, by name; others are found by trying.
        count: How many, rounded up to whole batches; None: 200, or fewer where the model is large, but four batches
            at least.

    Raises:
        ModelError: onnxruntime runs the model on none of the shapes tried.
    """
    sizes = next(running_shapes(model, shapes))
    rng = np.random.default_rng(seed)
    batch = _batch(model, sizes)
    if count is None:
        count = _count(model, sizes, batch)
        count = max(count, BATCHES * (batch or 1))
    entries = count if batch is None else -(-count // batch)
    arrays, kinds = {}, []
    for value in graph_inputs(model):
        name = value.name or ""
        shape = (entries, *sizes[name])
        array, kind = _filled(value, shape, rng)
        arrays[name] = array if batch is None else array.reshape(-1, *sizes[name][1:])
        kinds.append(f"{name}: {kind}")
    note = f"made-up samples, no real ones: {'; '.join(kinds)}. Give real ones with --data wherever there are any"
    return make_dataset(arrays, model, note=note)


def image_noise(count: int, channels: int, height: int, width: int, seed: int) -> Array:
    """Images of 1/f^a noise, mean 0 and on the whole variance 1: float32, (count, channels, height, width)."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(rows, columns)
    frequency[0, 0] = 1 / max(height, width)  # the mean of an image varies as its slowest waves do
    images = np.empty((count, channels, height, width), np.float32)
    for image in images:
        fall = frequency ** -rng.uniform(*EXPONENTS)
        waves = np.fft.rfft2(rng.standard_normal((channels + 1, height, width))) * fall
        noise = np.fft.irfft2(waves, s=(height, width))
        noise /= np.sqrt((noise**2).mean((1, 2), keepdims=True))
        mixed = np.sqrt(ALIKE) * noise[:1] + np.sqrt(1 - ALIKE) * noise[1:]
        image[:] = mixed * np.exp(rng.normal(0, CONTRAST))
    return images / np.float32(max(float(images.std()), 1e-30))


def _count(model: ir.Model, sizes: Shapes, batch: int | None) -> int:
    """How many samples calibration can be asked to run."""
    whole = inline(model)
    work = macs(whole, measure(whole, sizes).shapes) / (batch or 1)
    numbers = sum(math.prod(shape) for shape in sizes.values()) / (batch or 1)
    return min(
        affordable(work, WORK, FEWEST, SAMPLES), affordable(numbers, NUMBERS, FEWEST, SAMPLES)
    )


def _filled(value: ir.Value, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Array, str]:
    """Samples of one input, (entries, *shape), and what they are, in words."""
    dtype = value.dtype or ir.DataType.FLOAT
    if dtype == ir.DataType.STRING:
        return np.full(shape, "hello world", object), "the same text"
    kind = dtype.numpy()
    layout = _image_axis(shape[1:])
    if layout is not None and (dtype.is_floating_point() or dtype == ir.DataType.UINT8):
        return _images(value, shape, layout, rng)
    if dtype.is_floating_point():
        return rng.standard_normal(shape).astype(kind), "normal numbers"
    rows = _table_rows(value)
    if rows is None:
        return np.ones(shape, kind), "ones"
    return rng.integers(0, rows, shape).astype(kind), f"integers below {rows}"


def _images(
    value: ir.Value, shape: tuple[int, ...], axis: int, rng: np.random.Generator
) -> tuple[Array, str]:
    entries, batch, *_ = shape
    channels = shape[1 + axis]
    height, width = shape[3:] if axis == 1 else shape[2:4]
    seed = int(rng.integers(1 << 31))
    noise = image_noise(entries * batch, channels, height, width, seed)
    dtype = value.dtype or ir.DataType.FLOAT
    if dtype == ir.DataType.UINT8:
        images, words = np.clip(noise * 64 + 128, 0, 255), "images of 1/f noise, 0 to 255"
    else:
        scale = input_scale(value, noise)
        images = noise * scale.spread + scale.mean.reshape(-1, 1, 1)
        words = f"images of 1/f noise, spread {scale.spread:.3g} ({scale.why})"
    if axis == 3:
        images = images.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images, dtype.numpy()).reshape(shape), words


def _image_axis(shape: tuple[int, ...]) -> int | None:
    """The axis of the channels, if the shape is that of images."""
    for axis, sides in ((1, shape[2:]), (3, shape[1:3])):
        if len(shape) == 4 and shape[axis] in (1, 3) and min(sides) >= SMALLEST_IMAGE:
            return axis
    return None


def _table_rows(value: ir.Value) -> int | None:
    """The rows of the smallest table that an integer input looks up; None where it looks up none."""
    found = list(_tables(value))
    return min(found) if found else None


def _tables(value: ir.Value) -> Iterator[int]:
    for node, index in value.uses():
        if node.op_type in TABLES:
            for table in node.inputs:
                tensor = None if table is None or table is value else constant(table)
                if tensor is not None and len(tensor.shape) >= 2:
                    yield int(tensor.shape.numpy()[node.attributes.get_int("axis", 0)])
        elif node.op_type in CARRYING and index == 0:
            yield from _tables(node.outputs[0])


def _batch(model: ir.Model, sizes: Shapes) -> int | None:
    """How many samples a feed of these shapes holds along axis 0; None where samples must be whole feeds.

    An open first axis is one of samples if the model also runs on three times as many, and gives three times as much;
    a fixed one if the outputs have as much along theirs, or a multiple.
    """
    values = graph_inputs(model)
    first = {tuple(sizes[value.name or ""])[:1] for value in values}
    if len(first) != 1 or first == {()}:
        return None
    ((n,),) = first
    declared = {value.shape[0] for value in values if value.shape is not None}
    if all(isinstance(size, int) and size > 0 for size in declared):
        given_sizes = (value.shape[0] for value in model.graph.outputs if value.shape)
        return n if all(size % n == 0 for size in given_sizes if isinstance(size, int)) else None
    made = session(model, optimize=False)
    given: list[list[Array]] = []
    for times in (1, 3):
        feed = {}
        for value in values:
            shape = (n * times, *sizes[value.name or ""][1:])
            feed[value.name or ""] = np.concatenate(
                [
                    _filled(value, (1, n, *shape[1:]), np.random.default_rng(k))[0][0]
                    for k in range(times)
                ]
            )
        try:
            given.append(run(made, feed))
        except ModelError:
            return None
    tripled = all(
        isinstance(b, np.ndarray) and a.ndim and b.shape == (3 * a.shape[0], *a.shape[1:])
        for a, b in zip(*given, strict=True)
    )
    return n if tripled else None
