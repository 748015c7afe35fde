"""Group lasso over Dims: sparse training that drives whole channels to zero.

A group is one index of a Dim with all the numbers that live and die with it: the rows of the weights that make the
channel, their biases, the columns of those that read it. To the loss is added

    s sum_g sqrt(n_g) |w_g|          n_g numbers in group g

whose gradient never makes a norm exactly zero. Its proximal operator does: after each update with rate r, every group
is shrunk towards zero as a whole,

    w_g = w_g max(0, 1 - r s sqrt(n_g) / |w_g|)

and groups that the loss does not hold up end at zero and stay there. A weight with two Dims is shrunk along both, one
after the other. Channels that are zero cut away with no loss.

Sources: Yuan and Lin 2006 (group lasso); Wen et al., NeurIPS 2016, arXiv:1608.03665 (over channels); Parikh and Boyd
2014, section 6.5.4 (the operator).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff import Ops, Tensor
from onnxprune.dims import positions, trace
from onnxprune.errors import NothingToPruneError
from onnxprune.runtime.measure import measure

__all__ = ["Group", "Member", "groups_of", "shrunk"]


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one weight that a Dim runs along.

    Attributes:
        weight: Its name.
        axis: The axis.
        places: Which index of the Dim each place along the axis belongs to, -1 for none.
    """

    weight: str
    axis: int
    places: np.ndarray


@dataclass(frozen=True, eq=False)
class Group:
    """The groups of a Dim.

    Attributes:
        size: Indices of the Dim.
        members: All that they run through.
        count: Numbers in each group.
    """

    size: int
    members: tuple[Member, ...]
    count: np.ndarray


def groups_of(
    model: ir.Model, shapes: Mapping[str, tuple[int, ...]], trained: Collection[str]
) -> list[Group]:
    """The groups of every Dim that may be cut.

    Args:
        model: A model without local functions.
        shapes: Shapes of its inputs.
        trained: Names of the weights that are trained.

    Raises:
        NothingToPruneError: No Dim may be cut.
    """
    found = []
    for info in trace(model, measure(model, shapes)).free():
        members, count = [], np.zeros(info.size)
        for use, axis in info.slices:
            if use.weight.name not in trained or use.weight.graph is not model.graph:
                continue
            each = use.weight.nbytes * 8 // use.weight.dtype.bitwidth // use.weight.shape[axis]
            for places in positions(use.axes[axis], info.dim):
                members.append(Member(use.weight.name, axis, places))
                count += each * np.bincount(places[places >= 0], minlength=info.size)
        if members:
            found.append(Group(info.size, tuple(members), count))
    if not found:
        raise NothingToPruneError("group lasso finds no channels: no Dim of the model may be cut")
    return found


def shrunk(
    op: Ops, groups: Sequence[Group], weights: Mapping[str, Tensor], threshold: Tensor
) -> dict[str, Tensor]:
    """Weights after the proximal operator.

    Args:
        op: Writes the nodes.
        groups: What `groups_of` found.
        weights: Weight name to its value after the update.
        threshold: Rate times strength, a scalar.
    """
    found = dict(weights)
    for group in groups:
        squares = op.Sum(*(_squares(op, each, group.size, found) for each in group.members))
        norms = op.Sqrt(squares)
        limit = op.cast(threshold, norms.dtype) * op.constant(np.sqrt(group.count), norms.dtype)
        kept = op.Max(1.0 - limit / op.Max(norms, 1e-30), 0.0)
        one = op.constant(np.ones(1), kept.dtype)
        factors = op.Concat(kept, one, axis=0)
        for each in group.members:
            weight = found[each.weight]
            places = np.where(each.places >= 0, each.places, group.size)
            factor = op.Gather(factors, op.constant(places.astype(np.int64)), axis=0)
            shape = [len(places) if k == each.axis else 1 for k in range(weight.rank)]
            smaller = weight * op.cast(op.reshape(factor, shape), weight.dtype)
            smaller.value.shape = weight.value.shape
            found[each.weight] = smaller
    return found


def _squares(op: Ops, member: Member, size: int, weights: Mapping[str, Tensor]) -> Tensor:
    """The squares of a weight, summed for each index of the Dim: (size,)."""
    weight = weights[member.weight]
    others = [k for k in range(weight.rank) if k != member.axis]
    square = op.cast(weight * weight, ir.DataType.FLOAT)
    along = op.sum(square, others) if others else square
    table = np.zeros((len(member.places), size), np.float32)
    own = np.flatnonzero(member.places >= 0)
    table[own, member.places[own]] = 1.0
    return op.MatMul(along, op.constant(table))
