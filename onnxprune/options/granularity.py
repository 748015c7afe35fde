"""Granularities: over which sets of elements saliency is pooled, and that are kept or removed together.

| text | class | the sets |
|---|---|---|
| `channel` | Channel | the indices of a Dim, in every tensor that has it |
| `layer` | Layer | the nodes of a branch that a sum goes round |
| `weight` | Unstructured | single elements |
| `N:M` | NM | of every M neighbours along the contraction axis at most N stay non-zero |
| `block:RxC` | Block | R neighbours along the output axis times C along the contraction axis |

The first two are cut out. The last three zero elements in place and are masks; their axes are those of
`plan.contraction`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from onnxprune.errors import OptionError

__all__ = ["NM", "Block", "Channel", "Granularity", "Layer", "Unstructured", "parse_granularity"]


@dataclass(frozen=True)
class Channel:
    """Whole channels, cut out of every tensor they run through."""

    def __str__(self) -> str:
        return "channel"


@dataclass(frozen=True)
class Layer:
    """Whole layers, left out where a residual connection goes round them."""

    def __str__(self) -> str:
        return "layer"


@dataclass(frozen=True)
class Unstructured:
    """Single weights."""

    def __str__(self) -> str:
        return "weight"


@dataclass(frozen=True)
class NM:
    """At most `n` non-zero weights of every `m` neighbours along the contraction axis; 0 < n < m."""

    n: int
    m: int

    def __post_init__(self) -> None:
        """Raises OptionError unless 0 < n < m."""
        if not 0 < self.n < self.m:
            raise OptionError(f"granularity {self} needs 0 < N < M: N of every M weights stay")

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"


@dataclass(frozen=True)
class Block:
    """Blocks of `rows` outputs times `columns` inputs of a weight matrix."""

    rows: int
    columns: int

    def __post_init__(self) -> None:
        """Raises OptionError unless both are at least 1."""
        if self.rows < 1 or self.columns < 1:
            raise OptionError(f"granularity {self} needs at least one row and one column")

    def __str__(self) -> str:
        return f"block:{self.rows}x{self.columns}"


Granularity: TypeAlias = Channel | Layer | Unstructured | NM | Block


def parse_granularity(text: str) -> Granularity:
    """The granularity that `text` names.

    Args:
        text: `channel`, `layer`, `weight`, `N:M` such as `2:4`, or `block:RxC` such as `block:4x1`.

    Raises:
        OptionError: It is none of these.
    """
    word = text.strip().lower()
    if word == "channel":
        return Channel()
    if word == "layer":
        return Layer()
    if word == "weight":
        return Unstructured()
    if match := re.fullmatch(r"([0-9]{1,4}):([0-9]{1,4})", word):
        return NM(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"block:([0-9]{1,6})x([0-9]{1,6})", word):
        return Block(int(match[1]), int(match[2]))
    raise OptionError(
        f"unknown granularity {text!r}: use channel, layer, weight, N:M such as 2:4, or block:RxC such as block:4x1"
    )
