"""Sequences and optional values whose contents are known, taken apart.

What reads a sequence reads tensors after all: an element, the elements joined, their number. Where it
is known which values the sequence holds, the reader gets those themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, pairwise

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor
from onnxprune.autodiff.rewrite import rewrite
from onnxprune.autodiff.unroll import copy_body
from onnxprune.graph.flow import captured_values

__all__ = ["SEQUENCE_OPS", "resolve"]

Element = Callable[[Ops], Tensor]
"""Writes, if it must, and gives back one element of a sequence."""


def resolve(model: ir.Model, prefix: str) -> bool:
    """Replace, in place, the readers of sequences that are known.

    Args:
        model: Its values have types, shapes, and where they are settled, constants.
        prefix: Start of the names of new values, which no other name starts with.

    Returns:
        Whether there was any.
    """
    return rewrite(model, prefix, _known, lambda op, node: [_READERS[node.op_type](op, node)])


def _known(node: ir.Node) -> bool:
    if node.op_type not in _READERS or not node.inputs:
        return False
    if node.op_type in _OPTIONAL:
        return node.inputs[0] is not None and isinstance(node.inputs[0].type, ir.TensorType)
    if _elements(node.inputs[0]) is None:
        return False
    return node.op_type != "SequenceAt" or _constant(node.inputs[1]) is not None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None else tensor.numpy()


def _elements(sequence: ir.Value | None) -> list[Element] | None:
    """What a sequence holds, None where that is not known."""
    node = None if sequence is None else sequence.producer()
    if sequence is None or node is None:
        return None
    if node.op_type == "SequenceMap":
        return _mapped(node, sequence.index() or 0)
    maker = _MAKERS.get(node.op_type)
    return None if maker is None else maker(node)


def _as_it_is(value: ir.Value | None) -> Element:
    assert value is not None
    return partial(Tensor, value)


def _place(node: ir.Node, index: int, default: int) -> int | None:
    """A position that is an input; None where it is not known."""
    if len(node.inputs) <= index or node.inputs[index] is None:
        return default
    found = _constant(node.inputs[index])
    return None if found is None else int(found.ravel()[0])


def _inserted(node: ir.Node) -> list[Element] | None:
    held = _elements(node.inputs[0])
    place = None if held is None else _place(node, 2, len(held))
    if held is None or place is None:
        return None
    place = place if place >= 0 else place + len(held)
    return [*held[:place], _as_it_is(node.inputs[1]), *held[place:]]


def _erased(node: ir.Node) -> list[Element] | None:
    held = _elements(node.inputs[0])
    place = None if held is None else _place(node, 1, -1)
    if held is None or place is None:
        return None
    place %= len(held)
    return held[:place] + held[place + 1 :]


def _split(node: ir.Node) -> list[Element] | None:
    """Pieces of equal size (the last may be smaller), of given sizes, or single indices."""
    x = node.inputs[0]
    assert x is not None
    axis = node.attributes.get_int("axis", 0)
    size = None if x.shape is None else x.shape[axis]
    split = node.inputs[1] if len(node.inputs) > 1 else None
    sizes = np.array(1) if split is None else _constant(split)
    if not isinstance(size, int) or sizes is None:
        return None
    step = int(sizes.ravel()[0]) if sizes.ndim == 0 else 0
    ends = [*range(step, size, step), size] if step else list(accumulate(map(int, sizes)))
    squeezed = split is None and not node.attributes.get_int("keepdims", 1)

    def piece(bounds: tuple[int, int], op: Ops) -> Tensor:
        cut = op.Slice(Tensor(x, op), [bounds[0]], [bounds[1]], [axis])
        return op.Squeeze(cut, [axis]) if squeezed else cut

    return [partial(piece, bounds) for bounds in pairwise([0, *ends])]


def _mapped(node: ir.Node, output: int) -> list[Element] | None:
    """The body on each element; inputs that are no sequences are the same for all."""
    held = [_elements(value) for value in node.inputs]
    body, columns = node.attributes["body"].as_graph(), []
    if held[0] is None or any(captured_values(inner) for inner in body):
        return None
    for value, elements in zip(node.inputs, held, strict=True):
        if elements is None and not (value is not None and isinstance(value.type, ir.TensorType)):
            return None
        columns.append([_as_it_is(value)] * len(held[0]) if elements is None else elements)

    def applied(row: Sequence[Element], op: Ops) -> Tensor:
        return copy_body(op, body, [element(op) for element in row])[output]

    return [partial(applied, row) for row in zip(*columns, strict=True)]


_OPTIONAL = {"Optional", "OptionalGetElement"}
_MAKERS: dict[str, Callable[[ir.Node], list[Element] | None]] = {
    **dict.fromkeys(("Identity", *_OPTIONAL), lambda node: _elements(node.inputs[0])),
    "SequenceConstruct": lambda node: [_as_it_is(value) for value in node.inputs],
    "SequenceEmpty": lambda _: [],
    "SequenceErase": _erased,
    "SequenceInsert": _inserted,
    "SplitToSequence": _split,
}


def _all(op: Ops, node: ir.Node) -> Sequence[Tensor]:
    return [element(op) for element in _elements(node.inputs[0]) or []]


def _joined(op: Ops, node: ir.Node) -> Tensor:
    axis, parts = node.attributes["axis"].as_int(), _all(op, node)
    if node.attributes.get_int("new_axis", 0):
        parts = [op.Unsqueeze(part, [axis]) for part in parts]
    return op.Concat(*parts, axis=axis)


def _at(op: Ops, node: ir.Node) -> Tensor:
    place = _place(node, 1, 0)
    assert place is not None
    return (_elements(node.inputs[0]) or [])[place](op)


_READERS: dict[str, Callable[[Ops, ir.Node], Tensor]] = {
    **dict.fromkeys(_OPTIONAL, lambda op, node: _as_it_is(node.inputs[0])(op)),
    "ConcatFromSequence": _joined,
    "SequenceAt": _at,
    "SequenceLength": lambda op, node: op.constant(np.array(len(_elements(node.inputs[0]) or []))),
}

SEQUENCE_OPS = frozenset({*_MAKERS, *_READERS, "SequenceMap"}) - {"Identity"}
"""The ops that this takes apart."""
