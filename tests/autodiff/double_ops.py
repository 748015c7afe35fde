"""The ops that `double.py` computes itself, in numpy on float64: attributes and inputs to outputs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from double_recurrent import recurrent

Array = np.ndarray[Any, Any]
Attributes = Mapping[str, Any]


def wide(array: Array) -> Array:
    """As float64, if it is of real numbers."""
    return array.astype(np.float64) if array.dtype.kind in ("f", "V") else array


def windows(
    attributes: Attributes, kernel: Sequence[int], size: Sequence[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    """Strides, dilations, padding before and behind, one entry a spatial axis."""
    rank = len(kernel)
    strides = list(attributes.get("strides", [1] * rank))
    dilations = list(attributes.get("dilations", [1] * rank))
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    auto = attributes.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        totals = [
            max((math.ceil(n / s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if auto == "SAME_UPPER" else [*large, *small]
    elif auto == "VALID":
        pads = [0] * (2 * rank)
    return strides, dilations, pads[:rank], pads[rank:]


def taps(
    kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], out: Sequence[int]
) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Every element of the kernel, and what it reads of the padded input."""
    for tap in itertools.product(*map(range, kernel)):
        yield (
            tap,
            (
                ...,
                *(
                    slice(t * d, t * d + (n - 1) * s + 1, s)
                    for t, d, s, n in zip(tap, dilations, strides, out, strict=True)
                ),
            ),
        )


def _out(size: Sequence[int], kernel: Sequence[int], s: list[int], d: list[int]) -> list[int]:
    return [
        (n - (k - 1) * dd - 1) // ss + 1 for n, k, ss, dd in zip(size, kernel, s, d, strict=True)
    ]


def _padded(x: Array, before: Sequence[int], behind: Sequence[int]) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *zip(before, behind, strict=True)])


def _conv(attributes: Attributes, x: Array, w: Array, b: Array | None = None) -> list[Array]:
    group, kernel = attributes.get("group", 1), w.shape[2:]
    s, d, before, behind = windows(attributes, kernel, x.shape[2:])
    x = _padded(x, before, behind)
    out = _out(x.shape[2:], kernel, s, d)
    n, k = x.shape[0], w.shape[0]
    grouped = w.reshape(group, k // group, *w.shape[1:])
    y = np.zeros((n, group, k // group, math.prod(out)))
    for tap, window in taps(kernel, s, d, out):
        part = np.ascontiguousarray(x[window]).reshape(n, group, w.shape[1], -1)
        y += np.matmul(grouped[(..., *tap)], part)
    y = y.reshape(n, k, *out)
    return [y if b is None else y + b.reshape(-1, *[1] * len(out))]


def _conv_transpose(
    attributes: Attributes, x: Array, w: Array, b: Array | None = None
) -> list[Array]:
    group, kernel, rank = attributes.get("group", 1), w.shape[2:], w.ndim - 2
    s, d, before, behind = windows(attributes, kernel, x.shape[2:])
    extra = list(attributes.get("output_padding", [0] * rank))
    sizes = [
        (n - 1) * ss + (k - 1) * dd + 1 + e
        for n, ss, k, dd, e in zip(x.shape[2:], s, kernel, d, extra, strict=True)
    ]
    if "output_shape" in attributes or attributes.get("auto_pad", "NOTSET") != "NOTSET":
        raise NotImplementedError("ConvTranspose with an output shape")
    n, c = x.shape[:2]
    flat = x.reshape(n, group, c // group, -1)
    grouped = w.reshape(group, c // group, *w.shape[1:])
    y = np.zeros((n, group * w.shape[1], *sizes))
    for tap, window in taps(kernel, s, d, x.shape[2:]):
        weights = np.swapaxes(grouped[(..., *tap)], 1, 2)
        y[window] += np.matmul(weights, flat).reshape(n, -1, *x.shape[2:])
    ends = [slice(a, size - e) for a, e, size in zip(before, behind, sizes, strict=True)]
    y = y[(..., *ends)]
    return [y if b is None else y + b.reshape(-1, *[1] * rank)]


def _average_pool(attributes: Attributes, x: Array) -> list[Array]:
    if attributes.get("ceil_mode"):
        raise NotImplementedError("ceil_mode")
    kernel = attributes["kernel_shape"]
    s, d, before, behind = windows(attributes, kernel, x.shape[2:])
    ones = np.ones((1, 1, *x.shape[2:]))
    counted = _padded(ones, before, behind)
    if attributes.get("count_include_pad"):
        counted = np.ones_like(counted)
    x = _padded(x, before, behind)
    out = _out(x.shape[2:], kernel, s, d)
    total, count = np.zeros((*x.shape[:2], *out)), np.zeros((1, 1, *out))
    for _, window in taps(kernel, s, d, out):
        total += x[window]
        count += counted[window]
    return [total / count]


def _global_max_pool(_: Attributes, x: Array) -> list[Array]:
    return [x.max(tuple(range(2, x.ndim)), keepdims=True)]


def _lrn(attributes: Attributes, x: Array) -> list[Array]:
    size = attributes["size"]
    squares = np.pad(x * x, [(0, 0), ((size - 1) // 2, size // 2), *[(0, 0)] * (x.ndim - 2)])
    total = sum(squares[:, k : k + x.shape[1]] for k in range(size))
    scale = attributes.get("alpha", 1e-4) / size
    base = attributes.get("bias", 1.0) + scale * total
    return [x / base ** attributes.get("beta", 0.75)]


def _global_average_pool(_: Attributes, x: Array) -> list[Array]:
    return [x.mean(tuple(range(2, x.ndim)), keepdims=True)]


def _erf(_: Attributes, x: Array) -> list[Array]:
    return [np.vectorize(math.erf, otypes=["d"])(x)]


def _gelu(attributes: Attributes, x: Array) -> list[Array]:
    if attributes.get("approximate", "none") == "tanh":
        return [x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))]
    return [x / 2 * (1 + _erf({}, x / math.sqrt(2))[0])]


def _image_scaler(attributes: Attributes, x: Array) -> list[Array]:
    bias = np.array(attributes["bias"]).reshape(-1, *[1] * (x.ndim - 2))
    return [x * attributes.get("scale", 1.0) + bias]


def _affine(attributes: Attributes, x: Array) -> list[Array]:
    return [attributes.get("alpha", 1.0) * x + attributes.get("beta", 0.0)]


def _crop(attributes: Attributes, x: Array) -> list[Array]:
    left, top, right, bottom = attributes["border"]
    height, width = attributes.get("scale", (x.shape[2] - top - bottom, x.shape[3] - left - right))
    return [x[:, :, top : top + height, left : left + width]]


def _prelu(_: Attributes, x: Array, slope: Array) -> list[Array]:
    return [np.where(x < 0, x * slope, x)]


def _shrink(attributes: Attributes, x: Array) -> list[Array]:
    edge, bias = attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    return [np.where(x < -edge, x + bias, np.where(x > edge, x - bias, 0.0))]


def _constant(attributes: Attributes) -> list[Array]:
    ((name, value),) = attributes.items()
    if name == "value":
        return [wide(value.numpy())]
    return [wide(np.asarray(value, np.float32 if "float" in name else np.int64))]


def _constant_of_shape(attributes: Attributes, shape: Array) -> list[Array]:
    fill = wide(attributes["value"].numpy()) if "value" in attributes else np.zeros(1)
    return [np.full(tuple(shape), fill.ravel()[0])]


OPS: dict[str, Callable[..., list[Array]]] = {
    "Affine": _affine,
    "AveragePool": _average_pool,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Crop": _crop,
    "Erf": _erf,
    "Gelu": _gelu,
    "GRU": recurrent("GRU"),
    "GlobalAveragePool": _global_average_pool,
    "GlobalMaxPool": _global_max_pool,
    "ImageScaler": _image_scaler,
    "LRN": _lrn,
    "LSTM": recurrent("LSTM"),
    "PRelu": _prelu,
    "RNN": recurrent("RNN"),
    "Shrink": _shrink,
}
