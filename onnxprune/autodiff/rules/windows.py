"""What convolutions and poolings share: their windows, and the sum over windows backwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onnxprune.autodiff.builder import Shape, Tensor
from onnxprune.autodiff.registry import Call

__all__ = ["Window", "scatter_windows", "window"]


@dataclass(frozen=True)
class Window:
    """A sliding window, one entry a spatial axis.

    Attributes:
        kernel: Its size.
        strides: How far it moves.
        dilations: The distance between its elements.
        begin: Padding before the first element of the input.
        end: Padding after the last.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def extent(self) -> tuple[int, ...]:
        """From its first to its last element, both included."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def pads(self) -> list[int]:
        """Padding as ONNX writes it."""
        return [*self.begin, *self.end]

    @property
    def taps(self) -> int:
        """Number of its elements."""
        return math.prod(self.kernel)

    def windows(self, sizes: Sequence[int]) -> list[int]:
        """How many windows there are along every axis of an input of the given sizes."""
        each = zip(sizes, self.begin, self.end, self.extent, self.strides, strict=True)
        return [(size + b + e - extent) // s + 1 for size, b, e, extent, s in each]


def window(call: Call, kernel: Sequence[int], spatial: Shape, *, automatic: bool = True) -> Window:
    """The window that a node's attributes describe.

    Args:
        call: A convolution or pooling.
        kernel: Size of its kernel.
        spatial: Sizes of the input's spatial axes.
        automatic: Work out `auto_pad`.
    """
    rank = len(kernel)
    strides = call.ints("strides", [1] * rank)
    dilations = call.ints("dilations", [1] * rank)
    pads = call.ints("pads", [0] * (2 * rank))
    auto = call.str("auto_pad", "NOTSET") if automatic else "NOTSET"
    if auto in {"SAME_UPPER", "SAME_LOWER"}:
        pads = _same(call, kernel, strides, dilations, spatial, auto == "SAME_UPPER")
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    return Window(
        tuple(kernel), tuple(strides), tuple(dilations), tuple(pads[:rank]), tuple(pads[rank:])
    )


def _same(
    call: Call,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    spatial: Shape,
    upper: bool,
) -> list[int]:
    """Pads that make the output ceil(input / stride) long; the odd one at the end or the start."""
    small, large = [], []
    for k, s, d, size in zip(kernel, strides, dilations, spatial, strict=True):
        if size is None and s != 1:
            raise call.error(f"{call.str('auto_pad')} with a stride needs inputs of fixed size")
        steps = 0 if size is None else (math.ceil(size / s) - 1) * s + 1 - size
        total = max(steps + (k - 1) * d, 0)
        small.append(total // 2)
        large.append(total - total // 2)
    return [*small, *large] if upper else [*large, *small]


def scatter_windows(
    weights: Tensor, dy: Tensor, out: Shape, x: Tensor, w: Window, group: int
) -> Tensor:
    """Add `weights` times `dy` back to where each window read: a transposed convolution.

    Args:
        weights: Of the convolution, K x C/group x kernel.
        dy: Gradient of its output, N x K x output.
        out: Sizes of the output's spatial axes.
        x: Its input, N x C x input, whose sizes the result takes.
        w: Its window.
        group: Its groups.
    """
    ends, rests, cut = [], [], False
    for axis, stride in enumerate(w.strides):
        size, windows = x.shape[2 + axis], out[axis]
        if size is not None and windows is not None:  # what the last window reads beyond the input
            beyond = (windows - 1) * stride + w.extent[axis] - w.begin[axis] - size
        elif stride == 1:
            beyond = w.end[axis]
        else:  # make it too long
            beyond, cut = 1 - stride, True
        ends.append(max(beyond, 0))
        rests.append(max(-beyond, 0))
    result = dy.ops.ConvTranspose(
        dy,
        weights,
        output_padding=rests,
        pads=[*w.begin, *ends],
        strides=list(w.strides),
        dilations=list(w.dilations),
        group=group,
        kernel_shape=list(w.kernel),
    )
    if not cut:
        return result
    axes = list(range(2, 2 + w.rank))
    sizes = dy.ops.Slice(dy.ops.Shape(x), [2], [2 + w.rank], [0])
    return dy.ops.Slice(result, [0] * w.rank, sizes, axes)
