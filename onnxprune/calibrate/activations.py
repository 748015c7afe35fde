"""How large the channels are that contractions read: sums over samples and positions, and each sample's mean.

Streamed in one walk through the model; what is kept is one number a channel, and one a sample and channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.collect import walk_of
from onnxprune.calibrate.contraction import Contraction
from onnxprune.dims import Tracing
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset

__all__ = ["Activations", "input_norms", "observe"]

Array = np.ndarray


@dataclass(frozen=True, eq=False)
class Activations:
    """What one contraction reads, channel by channel.

    Attributes:
        contraction: The contraction.
        magnitude: Mean |x|, float64, (channels,).
        norm: Root of the sum of x^2 over positions, meaned over samples, float64, (channels,).
        means: Mean over the positions of each sample, float32, (samples, channels).
    """

    contraction: Contraction
    magnitude: Array
    norm: Array
    means: Array


def observe(
    tracing: Tracing,
    wanted: Sequence[Contraction],
    data: Dataset,
    progress: Progress,
    providers: Sequence[str] = ("cpu",),
) -> list[Activations]:
    """The activations that some contractions read.

    Args:
        tracing: The model and its shapes.
        wanted: Contractions of it, in graph order.
        data: The samples.
        progress: Where the walk is shown.
        providers: onnxruntime providers by name.
    """
    walk = walk_of(tracing, data, providers)
    found = []
    with progress.step("observing activations", total=len(wanted)) as done:
        for each in wanted:
            if each.data not in each.node.outputs:
                walk.advance(each.node)
            found.append(_observed(each, (x for (x,) in walk.values([each.data])), len(data)))
            done(1)
    return found


def _observed(each: Contraction, batches: object, samples: int) -> Activations:
    total, squares, count, means = 0.0, 0.0, 0, []
    for x in batches:  # type: ignore[attr-defined]
        rows = _by_sample(each, x)
        wide = rows.astype(np.float64)
        total = total + np.abs(wide).sum((0, 1))
        squares = squares + (wide**2).sum((0, 1))
        count += rows.shape[0] * rows.shape[1]
        means.append(wide.mean(1).astype(np.float32))
    return Activations(
        each,
        np.asarray(total / count),
        np.asarray(np.sqrt(squares / samples)),
        np.concatenate(means),
    )


def _by_sample(each: Contraction, x: Array) -> Array:
    """(samples, positions, channels)."""
    if each.kind in ("conv", "transposed"):
        return x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    if each.kind == "recurrent":  # (time, samples, features), or with the directions second
        return np.moveaxis(x, -2, 0).reshape(x.shape[-2], -1, x.shape[-1])
    if each.kind == "left":
        x = np.swapaxes(x, -1, -2)
    return x.reshape(x.shape[0] if x.ndim > 1 else 1, -1, x.shape[-1])


def input_norms(seen: Sequence[Activations]) -> Mapping[ir.Value, Array]:
    """For every weight, what each of its elements multiplies: the norm of its input, float32, the weight's shape.

    A weight that several nodes read meets all that they read.
    """
    squares: dict[ir.Value, Array] = {}
    for found in seen:
        each = found.contraction
        groups, outputs, columns = each.arranged(each.view.read()).shape
        norm = np.repeat(found.norm, each.taps)
        norm = np.broadcast_to(norm.reshape(-1, 1, columns), (groups, outputs, columns))
        square = each.view.unread(each.weight(norm.astype(np.float32) ** 2, each.view.shape))
        squares[each.view.source] = squares.get(each.view.source, 0) + square
    return {value: np.sqrt(square) for value, square in squares.items()}
