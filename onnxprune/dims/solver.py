"""Unification of axes: what follows from two axes being the same.

Cases of `unify(a, b)`, each of equal size:

1. Dim with anything: the Dim is bound to it.
2. Sum with anything: the other is split at the sum's boundaries, and the parts unify in pairs. A sum of k parts
   against a product `k x n` so makes the parts one (channel shuffle, gate and up halves).
3. Product with product: the factors align from the innermost outwards; where sizes differ, a Dim whose size the
   other's divides becomes a product itself.

What cannot be reconciled is frozen with a reason: never an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from onnxprune.dims.axis import Axis, Dim, Product, Sum, children, leaves, resolve, size

__all__ = ["freeze", "mark_inexact", "split", "unify"]


def freeze(axis: Axis, reason: str) -> None:
    """No index of any Dim in the axis may be removed; the first reason given stays."""
    for dim in leaves(axis):
        if dim.frozen is None:
            dim.frozen = reason


def mark_inexact(axis: Axis, reason: str) -> None:
    """Removing indices of these Dims changes what is computed from the others."""
    for dim in leaves(axis):
        if dim.inexact is None:
            dim.inexact = reason


def unify(a: Axis, b: Axis) -> None:
    """From now on both axes are the same axis."""
    a, b = resolve(a), resolve(b)
    if a is b:
        return
    if size(a) != size(b):
        reason = f"axes of {size(a)} and {size(b)} meet"
        freeze(a, reason)
        freeze(b, reason)
    elif isinstance(a, Dim):
        _bind(a, b)
    elif isinstance(b, Dim):
        _bind(b, a)
    elif isinstance(a, Sum):
        _pairwise(a, b)
    elif isinstance(b, Sum):
        _pairwise(b, a)
    else:
        _align(a, b)


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis]:
    """Cuts an axis into consecutive parts of the given sizes, which add up to the whole.

    A Dim becomes the sum of its parts. A product is split along its outermost factor; an index of that in which an end
    falls becomes a part of its own, and is split along the rest.
    """
    axis = resolve(axis)
    if sum(sizes) != size(axis):
        raise ValueError(f"parts of {list(sizes)} do not make up an axis of {size(axis)}")
    if len(sizes) == 1:
        return [axis]
    if isinstance(axis, Dim):
        parts: list[Axis] = [Dim(n) for n in sizes]
        _bind(axis, Sum(tuple(parts)))
        return parts
    if isinstance(axis, Sum):
        return _split_sum(axis, sizes)
    outer, rest = axis.factors[0], Product(axis.factors[1:])
    edges = {0, *accumulate(sizes)}
    unit = size(rest)
    steps = sorted({bound for edge in edges for bound in (edge // unit, -(-edge // unit))})
    parts = split(outer, [b - a for a, b in pairwise(steps)])
    return _split_sum(Sum(tuple(Product((part, rest)) for part in parts)), sizes)


def _split_sum(axis: Sum, sizes: Sequence[int]) -> list[Axis]:
    queue, found = list(axis.parts), []
    for wanted in sizes:
        taken: list[Axis] = []
        while wanted:
            part = queue.pop(0)
            if size(part) > wanted:
                part, rest = split(part, [wanted, size(part) - wanted])
                queue.insert(0, rest)
            wanted -= size(part)
            taken.append(part)
        found.append(resolve(Sum(tuple(taken))))
    return found


def _bind(dim: Dim, axis: Axis) -> None:
    if any(leaf is dim for leaf in leaves(axis)):
        freeze(axis, "it would have to contain itself")
        return
    if dim.frozen:
        freeze(axis, dim.frozen)
    if dim.inexact:
        mark_inexact(axis, dim.inexact)
    dim.bound = axis


def _pairwise(total: Sum, other: Axis) -> None:
    parts = split(other, [size(part) for part in total.parts])
    for mine, theirs in zip(total.parts, parts, strict=True):
        unify(mine, theirs)


def _align(a: Product, b: Product) -> None:
    left, right = list(a.factors), list(b.factors)
    while left and right:
        x, y = resolve(left.pop()), resolve(right.pop())
        if isinstance(x, Product) or isinstance(y, Product):
            left += children(x) if isinstance(x, Product) else [x]
            right += children(y) if isinstance(y, Product) else [y]
        elif size(x) == 1:
            right.append(y)
        elif size(y) == 1:
            left.append(x)
        elif size(x) == size(y):
            unify(x, y)
        else:
            if size(x) > size(y):
                left, right, x, y = right, left, y, x
            if size(y) % size(x) or not isinstance(y, Dim):
                for each in [*left, *right, x, y]:
                    freeze(each, "it is merged with others in two ways that do not line up")
                return
            outer, inner = Dim(size(y) // size(x)), Dim(size(x))
            _bind(y, Product((outer, inner)))
            unify(x, inner)
            right.append(outer)
