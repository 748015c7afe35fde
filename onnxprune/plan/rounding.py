"""What widths a Dim may have: multiples of a step, and a least one.

With --round-to the user says. Else the kernels of the machine do, in two cases: where how many channels go is a matter
of speed (a sparsity, or a latency as target), and where a convolution in groups runs over a Dim, whatever the target.
Once the channels of its groups (of a depthwise one, all together) do not fill their blocks any more, onnxruntime leaves
its fast kernel, and the smaller model is slower than the original. All other widths are free: targets in MACs,
parameters and bytes are met as closely as they can be.
"""

from __future__ import annotations

import math

from onnxprune.dims import Axis, DimInfo, Product, Use, size
from onnxprune.options import PruneOptions
from onnxprune.runtime.hardware import channel_step

__all__ = ["least_of", "step_of"]


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
    for_speed = options.target is None or options.target.kind == "latency"
    return for_speed or any(k < 2 and _in_blocks(use) for use, k in info.slices)


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
