"""Cutting: a new model without the indices that are not kept.

Every weight is sliced by evaluating its axes (lazily: nothing is read before the model is saved or run), every integer
that follows is rewritten, and annotated shapes are brought up to date. The model traced is not changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.dims.axis import Axis, Keep, keep_mask
from onnxprune.dims.carriers import changes, new_size
from onnxprune.dims.edit import Edit
from onnxprune.dims.follow import follow
from onnxprune.dims.trace import Tracing, Use
from onnxprune.graph import Weight, replace

__all__ = ["by_weight", "cut", "removed"]

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
    for weight, uses in by_weight(tracing).items():
        _cut_weight(weight, uses, keep, edit)
    for carrier in tracing.carriers:
        follow(carrier, tracing, keep, edit)
    _update_shapes(tracing, keep, edit)
    edit.remove_unused()
    return edit.model


def removed(tracing: Tracing, keep: Keep) -> dict[str, dict[str, list[int]]]:
    """What is removed, as tensor name -> axis -> indices: the plan's format.

    A tensor whose uses are cut differently is not in it: each of them gets a copy of its own, under a new name.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for weight, uses in by_weight(tracing).items():
        groups = _groups(uses, keep)
        masks = _masks(uses[0].axes, keep)
        if len(groups) == 1 and not _whole(masks):
            found[weight.name] = {
                str(k): np.flatnonzero(~mask).tolist()
                for k, mask in enumerate(masks)
                if not mask.all()
            }
    return found


def by_weight(tracing: Tracing) -> dict[Weight, list[Use]]:
    """The uses of every weight that is used."""
    found: dict[Weight, list[Use]] = {}
    for use in tracing.uses:
        found.setdefault(use.weight, []).append(use)
    return found


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


def _cut_weight(weight: Weight, uses: Sequence[Use], keep: Keep, edit: Edit) -> None:
    """Slices a weight. Where its uses disagree, those that lose indices get copies."""
    if weight.kind == "constant_of_shape":
        return  # the sizes that it is made from follow
    groups = _groups(uses, keep)
    for k, group in enumerate(groups):
        masks = _masks(group[0].axes, keep)
        if _whole(masks):
            continue
        if len(groups) == 1 or any(use.node is None for use in group):
            replace(edit.weight[weight], sliced(weight, masks))
            continue
        copy = edit.constant(weight.graph, f"{weight.name}/{k + 1}", sliced(weight, masks))
        for use in group:
            assert use.node is not None
            edit.replace_input(use.node, use.index, copy)


def _groups(uses: Iterable[Use], keep: Keep) -> list[list[Use]]:
    """Uses that keep the same indices."""
    groups: dict[bytes, list[Use]] = {}
    for use in uses:
        key = b"".join(mask.tobytes() for mask in _masks(use.axes, keep))
        groups.setdefault(key, []).append(use)
    return list(groups.values())


def _masks(axes: Iterable[Axis], keep: Keep) -> Masks:
    return tuple(keep_mask(axis, keep) for axis in axes)


def _whole(masks: Masks) -> bool:
    return all(mask.all() for mask in masks)


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
    for value in edit.model.graph.outputs:
        # Some exporters write -1 for an open axis; with constant sizes before it, that is a contradiction.
        if value.shape is not None:
            sizes = [None if isinstance(n, int) and n < 0 else n for n in value.shape.dims]
            value.shape = ir.Shape(sizes)
