"""What widths a Dim may have: multiples of a step, and a least one.

With --round-to the user says. Else the kernels of the machine do, in two cases: where how many channels go is a matter
of speed (a sparsity, or a latency as target), and where a convolution in groups runs over a Dim, whatever the target.
Once the channels of its groups (of a depthwise one, all together) do not fill their blocks any more, onnxruntime leaves
its fast kernel, and the smaller model is slower than the original. All other widths are free: targets in MACs,
parameters and bytes are met as closely as they can be.

A cut in stages rounds in the last one. Where a stage is to take less than a block of a Dim it would take none, stage
after stage, and all from the Dims beside it that lose their indices one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from onnxprune.dims import Axis, Dim, DimInfo, Product, Use, size
from onnxprune.options import PruneOptions
from onnxprune.runtime.hardware import channel_step

__all__ = ["Blocks", "blocks_of", "least_of", "step_of"]


@dataclass(frozen=True)
class Blocks:
    """What the kernels of a model ask of the models that are cut from it, stage by stage.

    Attributes:
        steps: Name and axis of a kernel to what the Dim along it keeps a multiple of in the end.
        last: Whether this is the end. Before it widths are free, down to one such multiple.
    """

    steps: Mapping[tuple[str, int], int]
    last: bool

    def asked(self, dims: Iterable[DimInfo]) -> dict[Dim, int]:
        """What the Dims along these kernels keep a multiple of in the end."""
        return {
            info.dim: self.steps[use.weight.name, k]
            for info in dims
            for use, k in info.slices
            if (use.weight.name, k) in self.steps
        }


def blocks_of(dims: Iterable[DimInfo], options: PruneOptions) -> dict[tuple[str, int], int]:
    """The kernels that keep widths from being free where the target leaves them so, and what they ask."""
    return {
        (use.weight.name, k): step_of(info, options)
        for info in dims
        if options.round_to is None and not _for_speed(options)
        for use, k in info.slices
        if k < 2 and _in_blocks(use)
    }


def step_of(info: DimInfo, options: PruneOptions) -> int:
    """What a Dim keeps a multiple of: less where an index is several positions of an axis, or the Dim is narrow."""
    by_kernels = _by_kernels(info, options)
    step = channel_step() if by_kernels else options.round_to or 1
    step //= math.gcd(step, _positions(info))
    while by_kernels and step > 1 and info.size < 2 * step:
        step //= 2
    return step


def least_of(info: DimInfo, options: PruneOptions) -> int:
    """One block of channels where a pointwise convolution sums over them, and the kernels are to like it.

    Of fewer channels onnxruntime's convolution takes each from a plane of its own, and goes over its output once for
    every one of them: with a kernel of one element that costs more than what the fewer channels save.
    """
    pointwise = any(_is_pointwise(use, k) for use, k in info.slices)
    return channel_step() if pointwise and _by_kernels(info, options) else 1


def _by_kernels(info: DimInfo, options: PruneOptions) -> bool:
    if options.round_to is not None:
        return False
    return _for_speed(options) or any(k < 2 and _in_blocks(use) for use, k in info.slices)


def _for_speed(options: PruneOptions) -> bool:
    """Whether how many channels go is a matter of speed."""
    return options.target is None or options.target.kind == "latency"


def _positions(info: DimInfo) -> int:
    """Positions of an axis that an index of a Dim is, at least, where it is several in a row.

    Those of the groups of a convolution whose kernel takes each group in blocks are in no row.
    """
    found = 0
    for use, k in info.slices:
        axis = use.axes[k]
        if axis is info.dim or (k == 0 and _in_blocks(use) and _innermost(axis) is info.dim):
            found = 1
        elif isinstance(axis, Product):
            found = math.gcd(found, size(axis) // info.size)
    return found or 1


def _innermost(axis: Axis) -> Axis:
    return axis.factors[-1] if isinstance(axis, Product) else axis


def _is_pointwise(use: Use, k: int) -> bool:
    """Whether axis k of a weight is what a convolution with a kernel of one element sums over."""
    return (
        _is_conv(use)
        and (use.index, k) == (1, 1)
        and math.prod(use.weight.shape[2:]) == 1
        and _group(use) == 1
    )


def _in_blocks(use: Use) -> bool:
    """Whether a weight is the kernel of a convolution in groups whose channels fill their blocks.

    Those of each group have to; of a depthwise convolution all together.
    """
    group, block = _group(use), channel_step()
    if group == 1:
        return False
    count, width = use.weight.shape[:2]
    if width == 1 and count == group:
        return count % block == 0
    return width % block == 0 and count // group % block == 0


def _is_conv(use: Use) -> bool:
    return use.node is not None and use.node.op_type in ("Conv", "FusedConv")


def _group(use: Use) -> int:
    """Groups of the convolution that a weight is the kernel of; 1 for everything else."""
    if use.node is None or use.index != 1 or not _is_conv(use):
        return 1
    return use.node.attributes.get_int("group", 1)
