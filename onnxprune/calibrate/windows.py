"""The windows that a convolution or a pooling looks through."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["Windows"]

Array = np.ndarray


@dataclass(frozen=True)
class Windows:
    """Where windows lie on a map, by spatial axis.

    Attributes:
        kernel: Positions of a window.
        strides: From one window to the next.
        dilations: From one position of a window to the next.
        pads: Beyond the edges: begins, then ends.
        counts: How many windows there are.
        map: Size of the map.
    """

    kernel: Sequence[int]
    strides: Sequence[int]
    dilations: Sequence[int]
    pads: Sequence[int]
    counts: Sequence[int]
    map: Sequence[int]

    @classmethod
    def of(cls, node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> Windows:
        """Attributes with their defaults, `auto_pad` worked out, without `ceil_mode`."""
        rank = len(sizes)
        strides = list(node.attributes.get_ints("strides", ()) or [1] * rank)
        dilations = list(node.attributes.get_ints("dilations", ()) or [1] * rank)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = _pads(node, sizes, strides, spans)
        padded = [n + pads[k] + pads[rank + k] for k, n in enumerate(sizes)]
        counts = [(n - span) // s + 1 for n, span, s in zip(padded, spans, strides, strict=True)]
        return cls(tuple(kernel), strides, dilations, pads, counts, tuple(sizes))

    def pad(self, x: Array, value: float = 0.0) -> Array:
        """A map, (n, channels, ...), with what lies beyond its edges."""
        rank = len(self.map)
        if not any(self.pads):
            return x
        beyond = [(self.pads[k], self.pads[rank + k]) for k in range(rank)]
        return np.pad(x, [(0, 0), (0, 0), *beyond], constant_values=value)

    def inside(self) -> tuple[slice, ...]:
        """The map within the padded one."""
        begins = self.pads[: len(self.map)]
        within = (slice(b, b + n) for b, n in zip(begins, self.map, strict=True))
        return (slice(None), slice(None), *within)

    def taps(self) -> Iterator[tuple[slice, ...]]:
        """For each position of a window, where on the padded map it is in all windows."""
        for tap in product(*(range(k) for k in self.kernel)):
            places = (
                slice(t * d, t * d + (count - 1) * s + 1, s)
                for t, d, s, count in zip(
                    tap, self.dilations, self.strides, self.counts, strict=True
                )
            )
            yield (slice(None), slice(None), *places)

    def patches(self, x: Array, where: Array | None) -> Array:
        """Im2col at some windows, flat numbers: (n, windows, channels * positions); None: at all."""
        rank = len(self.map)
        spans = [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]
        view: Any = np.lib.stride_tricks.sliding_window_view
        windows = view(self.pad(x), spans, tuple(range(2, 2 + rank)))
        every: Any = (slice(None), slice(None))
        windows = windows[(*every, *(slice(None, None, s) for s in self.strides))]
        dilated = (slice(None, None, d) for d in self.dilations)
        windows = windows[(*every, *every[:1] * rank, *dilated)]
        chosen = np.arange(math.prod(self.counts)) if where is None else where
        picked: Array = windows[(*every, *np.unravel_index(chosen, self.counts))]
        n, c, p = picked.shape[:3]
        return picked.transpose(0, 2, 1, *range(3, picked.ndim)).reshape(
            n, p, c * math.prod(self.kernel)
        )


def _pads(
    node: ir.Node, sizes: Sequence[int], strides: Sequence[int], spans: Sequence[int]
) -> list[int]:
    """Begins, then ends."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        given = node.attributes.get_ints("pads", ()) if auto == "NOTSET" else None
        return list(given or [0] * 2 * len(sizes))
    totals = [
        max((-(-n // s) - 1) * s + span - n, 0)
        for n, s, span in zip(sizes, strides, spans, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
