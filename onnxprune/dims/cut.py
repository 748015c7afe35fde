"""Cutting: a new model without the indices that are not kept.

Every weight is sliced by evaluating its axes (lazily: nothing is read before the model is saved or run), every integer
that follows is rewritten, and annotated shapes are brought up to date. The model traced is not changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Keep, keep_mask
from onnxprune.dims.carriers import changes, new_size
from onnxprune.dims.follow import follow
from onnxprune.dims.trace import Tracing, Use, by_weight
from onnxprune.graph import Weight, replace
from onnxprune.graph.edit import Edit

__all__ = ["by_cut", "cut", "masks_of"]

Masks = tuple[np.ndarray, ...]

EAGER_BYTES = 1 << 16
"""Slices of weights up to this size are made at once; larger ones when the model is written or run."""


def cut(tracing: Tracing, keep: Keep) -> ir.Model:
    """The model without the indices that are not kept.

    Args:
        tracing: What `trace` found.
        keep: A boolean array of shape (dim.size,) for every Dim that loses indices, at least one of them kept.

    Returns:
        A new model; its large weights are slices that are taken when they are read.
    """
    edit = Edit(tracing.model)
    for weight, groups in by_cut(tracing, keep):
        _cut_weight(weight, groups, keep, edit)
    for carrier in tracing.carriers:
        follow(carrier, tracing, keep, edit)
    _update_shapes(tracing, keep, edit)
    edit.remove_unused()
    return edit.model


def sliced(weight: Weight, masks: Masks) -> ir.TensorProtocol:
    """The weight without the indices masked out, read when it is needed."""
    shape = tuple(int(mask.sum()) for mask in masks)
    where = tuple((k, np.flatnonzero(mask)) for k, mask in enumerate(masks) if not mask.all())

    def take() -> ir.TensorProtocol:
        array = weight.array()
        for k, kept in where:
            array = np.take(array, kept, axis=k)
        array = np.ascontiguousarray(array).reshape(shape)
        return ir.Tensor(array, dtype=weight.dtype, name=weight.name)

    if weight.nbytes <= EAGER_BYTES:
        return take()
    return ir.LazyTensor(take, dtype=weight.dtype, shape=ir.Shape(shape), name=weight.name)


def _cut_weight(weight: Weight, groups: Sequence[Sequence[Use]], keep: Keep, edit: Edit) -> None:
    """Slices a weight. Where its uses disagree, those that lose indices get copies."""
    if weight.kind == "constant_of_shape":
        return  # the sizes that it is made from follow
    for k, group in enumerate(groups):
        masks = masks_of(group[0], keep)
        if all(mask.all() for mask in masks):
            continue
        if len(groups) == 1 or any(use.node is None for use in group):
            replace(edit.weight[weight], sliced(weight, masks))
            continue
        copy = edit.constant(weight.graph, f"{weight.name}/{k + 1}", sliced(weight, masks))
        for use in group:
            assert use.node is not None
            edit.replace_input(use.node, use.index, copy)


def by_cut(tracing: Tracing, keep: Keep) -> Iterator[tuple[Weight, list[list[Use]]]]:
    """The uses of every weight, those together that keep the same indices."""
    for weight, uses in by_weight(tracing.uses).items():
        groups: dict[bytes, list[Use]] = {}
        for use in uses:
            key = b"".join(mask.tobytes() for mask in masks_of(use, keep))
            groups.setdefault(key, []).append(use)
        yield weight, list(groups.values())


def masks_of(use: Use, keep: Keep) -> Masks:
    """Which indices stay, axis by axis."""
    return tuple(keep_mask(axis, keep) for axis in use.axes)


def _update_shapes(tracing: Tracing, keep: Keep, edit: Edit) -> None:
    """Annotated shapes say the new sizes."""
    for value, axes in tracing.axes.items():
        twin = edit.value.get(value)
        if twin is None or twin.shape is None or twin.const_value is not None:
            continue
        if len(twin.shape) == len(axes) and changes(axes, keep):
            pairs = zip(axes, twin.shape.dims, strict=True)
            twin.shape = ir.Shape(
                [new_size(axis, n, keep) if isinstance(n, int) else n for axis, n in pairs]
            )
    made = (value for node in edit.model.graph.all_nodes() for value in node.outputs)
    for value in (*edit.model.graph.outputs, *made):
        # Some exporters write -1 for an open axis; with constant sizes before it, that is a contradiction.
        if value.shape is not None:
            sizes = [None if isinstance(n, int) and n < 0 else n for n in value.shape.dims]
            value.shape = ir.Shape(sizes)
