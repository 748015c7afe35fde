"""Masks from saliencies: the sets of a granularity, pooled, and spread out again over the elements.

A weight is seen as matrices [stack, output, contraction] (`Layout`). The sets are

1. single elements,
2. blocks of R outputs x C inputs of one matrix; those at the far edges are smaller where the sizes do not divide,
   so a block's saliency is the power mean over its elements, which equal blocks rank as the norm does;
3. groups of M neighbours along the contraction axis, of which the N largest stay. The last group of r < M elements
   keeps min(N, r), as if padded with zeros to M, so a matrix with fewer than N inputs (depthwise convolutions) stays.

True in a mask is an element that becomes zero. Equal saliencies go in C order, so masks are deterministic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxprune.options import NM, Block
from onnxprune.plan.contraction import Axes
from onnxprune.scores.criterion import Array, Criterion

__all__ = ["BoolArray", "Layout", "block_saliency", "nm_mask", "spread_blocks"]

BoolArray = npt.NDArray[np.bool_]

_ROWS = 1 << 20  # elements ranked at a time by nm_mask


@dataclass(frozen=True)
class Layout:
    """How a tensor is a stack of matrices.

    Attributes:
        shape: Of the tensor.
        axes: Its output and contraction axes; the contraction axis is known.
    """

    shape: tuple[int, ...]
    axes: Axes

    def __post_init__(self) -> None:
        """Checks what `operands` guarantees."""
        assert self.axes.contraction is not None, "lost in a reshape"
        assert self.shape[self.axes.contraction] % self.axes.groups == 0, "groups divide the axis"

    def matrices(self, array: Array) -> Array:
        """The tensor as [stack, output, contraction]; a view where the axes allow it."""
        split = array.reshape(self._split_shape).transpose(self._order)
        return split.reshape(self.matrix_shape)

    def tensor(self, matrices: Array) -> Array:
        """The inverse of `matrices`."""
        ordered = tuple(self._split_shape[i] for i in self._order)
        inverse = np.argsort(self._order)
        return matrices.reshape(ordered).transpose(inverse).reshape(self.shape)

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """Of `matrices`."""
        sizes = [self._split_shape[i] for i in self._order]
        return math.prod(sizes[:-2]), sizes[-2], sizes[-1]

    @property
    def _split_shape(self) -> tuple[int, ...]:
        """The shape with the groups as an axis of their own before the contraction axis, and an output axis of 1."""
        axis, groups = self._contraction, self.axes.groups
        whole = (*self.shape[:axis], groups, self.shape[axis] // groups, *self.shape[axis + 1 :])
        return (*whole, 1) if self.axes.output is None else whole

    @property
    def _order(self) -> tuple[int, ...]:
        axis, output = self._contraction, self.axes.output
        last = len(self.shape) + 1 if output is None else output + (output > axis)
        rest = [i for i in range(len(self._split_shape)) if i not in (last, axis + 1)]
        return (*rest, last, axis + 1)

    @property
    def _contraction(self) -> int:
        assert self.axes.contraction is not None
        return self.axes.contraction


def nm_mask(saliency: Array, pattern: NM) -> BoolArray:
    """Marks all but the N most salient of every M neighbours.

    Args:
        saliency: Matrices [stack, output, contraction].
        pattern: N and M.

    Returns:
        A mask of the same shape.
    """
    *_, inputs = saliency.shape
    rows = saliency.reshape(-1, inputs)
    mask = np.zeros(rows.shape, np.bool_)
    step = max(1, _ROWS // max(1, inputs))
    whole = inputs - inputs % pattern.m
    for start in range(0, len(rows), step):
        part, out = rows[start : start + step], mask[start : start + step]
        full = part[:, :whole].reshape(len(part), -1, pattern.m)
        out[:, :whole] = _all_but_largest(full, pattern.n).reshape(len(part), whole)
        out[:, whole:] = _all_but_largest(part[:, whole:], pattern.n)
    return mask.reshape(saliency.shape)


def _all_but_largest(groups: Array, keep: int) -> BoolArray:
    """Of each row along the last axis, all but the `keep` largest; of equal ones the first go."""
    mask = np.zeros(groups.shape, np.bool_)
    remove = groups.shape[-1] - keep
    if remove > 0:
        order = np.argsort(groups, axis=-1, kind="stable")[..., :remove]
        np.put_along_axis(mask, order, True, axis=-1)
    return mask


def block_saliency(saliency: Array, block: Block, criterion: Criterion) -> Array:
    """Power mean of the saliency over each block.

    Args:
        saliency: Matrices [stack, output, contraction].
        block: Its sizes; blocks start at the first output and input, the last ones may be smaller.
        criterion: Gives the power.

    Returns:
        float32 [stack, ceil(output / R), ceil(contraction / C)].
    """
    _, outputs, inputs = saliency.shape
    energy = saliency.astype(np.float64) ** criterion.power
    energy = _sum_runs(_sum_runs(energy, 1, block.rows), 2, block.columns)
    sizes = np.outer(_sizes(outputs, block.rows), _sizes(inputs, block.columns))
    return criterion.norm(energy / sizes).astype(np.float32)


def spread_blocks(mask: BoolArray, shape: tuple[int, ...], block: Block) -> BoolArray:
    """A mask over blocks as a mask over the elements of matrices [stack, output, contraction] of that shape."""
    _, outputs, inputs = shape
    tall = np.repeat(mask, _sizes(outputs, block.rows), axis=1)
    return np.repeat(tall, _sizes(inputs, block.columns), axis=2)


def _sum_runs(array: Array, axis: int, step: int) -> Array:
    """Sums of every `step` neighbours along an axis, the last ones of what is left."""
    if step == 1:
        return array
    return np.add.reduceat(array, _starts(array.shape[axis], step), axis=axis)


def _starts(length: int, step: int) -> npt.NDArray[np.intp]:
    return np.arange(0, length, step)


def _sizes(length: int, step: int) -> npt.NDArray[np.intp]:
    return np.minimum(length - _starts(length, step), step)
