"""From a model and options to a WeightPlan: which weights become zero.

Streams the weights one at a time: once for N:M and thresholds, three times where a sparsity asks for the k least (two
to find the cut, one to mark). What stays in memory are the packed masks.

    layer    each tensor loses the given fraction of its sets
    global   the model loses it, wherever the least salient sets are
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import Weight, weights
from onnxprune.graph.patterns import is_named
from onnxprune.options import NM, Block, Channel, PruneOptions
from onnxprune.plan.contraction import Operand, operands
from onnxprune.plan.masks import BoolArray, Layout, block_saliency, nm_mask, spread_blocks
from onnxprune.plan.select import Cut, fraction_of, least
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.progress import Progress, Silent
from onnxprune.scores import Context, Criterion, get_criterion
from onnxprune.scores.criterion import Array

__all__ = ["plan_weights", "weight_names"]


def plan_weights(
    model: ir.Model,
    options: PruneOptions,
    context: Context | None = None,
    progress: Progress | None = None,
) -> WeightPlan:
    """Decides which weights become zero.

    Args:
        model: Read, never changed.
        options: Of a granularity other than `channel`.
        context: Seed and statistics of the criterion; by default the seed of the options.
        progress: Where the work is shown.

    Returns:
        The plan; at least one weight becomes zero.

    Raises:
        NothingToPruneError: No weight can be, or so few that none is; says why.
        OnnxPruneError: A weight has NaN values.
    """
    if isinstance(options.granularity, Channel):
        raise OptionError("granularity channel is planned by Dims, not by masks")
    job = _Job(options, get_criterion(options.criterion), context or Context(options.seed))
    names = weight_names(model)
    found, refused = operands(model)
    skipped = {names[item.weight.value]: item.reason for item in refused}
    work = []
    for operand in found:
        reason = job.refusal(operand)
        if reason:
            skipped[names[operand.weight.value]] = reason
        else:
            work.append(_Item(names[operand.weight.value], operand))
    masks = {}
    with (progress or Silent()).step("choosing weights", len(work)) as advance:
        for name, mask in job.masks(work):
            advance(1)
            if mask.count:
                masks[name] = mask
    if not masks:
        raise NothingToPruneError(_nothing(options, work, skipped))
    return WeightPlan(str(options.granularity), masks, skipped)


def weight_names(model: ir.Model) -> dict[ir.Value, str]:
    """The plan's name of every constant tensor: its own, with `#2`, `#3` ... where another scope has used it before."""
    seen: Counter[str] = Counter()
    names = {}
    for weight in weights(model):
        seen[weight.name] += 1
        count = seen[weight.name]
        names[weight.value] = weight.name if count == 1 else f"{weight.name}#{count}"
    return names


@dataclass(frozen=True)
class _Item:
    name: str
    operand: Operand

    @property
    def weight(self) -> Weight:
        return self.operand.weight


@dataclass(frozen=True)
class _Job:
    options: PruneOptions
    criterion: Criterion
    context: Context

    def refusal(self, operand: Operand) -> str:
        """Why this run leaves the operand alone; empty where it does not."""
        if is_named(operand.names, self.options.exclude):
            return "excluded"
        granularity, axes = self.options.granularity, operand.axes
        if isinstance(granularity, (NM, Block)) and axes.contraction is None:
            return f"a layout op hides its contraction axis, which {granularity} needs"
        if isinstance(granularity, Block) and axes.output is None and len(operand.weight.shape) > 1:
            return f"a layout op hides its output axis, which {granularity} needs"
        return ""

    def masks(self, work: Sequence[_Item]) -> Iterator[tuple[str, Mask]]:
        """The mask of every item, in order, one tensor in memory at a time."""
        granularity = self.options.granularity
        if isinstance(granularity, NM) or self.options.uses_threshold:
            for item in work:
                yield item.name, Mask.of(self._alone(item))
        elif self.options.scope == "global":
            yield from self._ranked(work)
        else:
            for item in work:
                yield from self._ranked([item])

    def _alone(self, item: _Item) -> BoolArray:
        """Masks that each tensor decides for itself: N:M and thresholds."""
        saliency = self._elements(item)
        granularity = self.options.granularity
        if isinstance(granularity, NM):
            layout = Layout(saliency.shape, item.operand.axes)
            mask: BoolArray = layout.tensor(nm_mask(layout.matrices(saliency), granularity))
            return mask
        eps = self.options.threshold
        if eps is None:
            eps = (self.options.relative_threshold or 0) * float(saliency.sum(dtype=np.float64))
        below: BoolArray = saliency <= eps
        return below

    def _ranked(self, work: Sequence[_Item]) -> Iterator[tuple[str, Mask]]:
        """Masks over the least salient sets of all these tensors together."""
        total = sum(self._sets(item) for item in work)
        cut = least(
            lambda: (self._saliency(item) for item in work),
            fraction_of(self.options.fraction, total),
        )
        for item in work:
            mask, cut = self._mark(item, cut)
            yield item.name, Mask.of(mask)

    def _mark(self, item: _Item, cut: Cut) -> tuple[BoolArray, Cut]:
        mask, rest = cut.mask(self._saliency(item))
        granularity = self.options.granularity
        if isinstance(granularity, Block):
            layout = Layout(item.weight.shape, item.operand.axes)
            mask = layout.tensor(spread_blocks(mask, layout.matrix_shape, granularity))
        return mask, rest

    def _sets(self, item: _Item) -> int:
        granularity, shape = self.options.granularity, item.weight.shape
        if not isinstance(granularity, Block):
            return int(np.prod(shape))
        stack, outputs, inputs = Layout(shape, item.operand.axes).matrix_shape
        return stack * -(-outputs // granularity.rows) * -(-inputs // granularity.columns)

    def _saliency(self, item: _Item) -> Array:
        """Of every set of the tensor."""
        saliency = self._elements(item)
        granularity = self.options.granularity
        if not isinstance(granularity, Block):
            return saliency
        matrices = Layout(saliency.shape, item.operand.axes).matrices(saliency)
        return block_saliency(matrices, granularity, self.criterion)

    def _elements(self, item: _Item) -> Array:
        """Of every element; of an integer weight by the reals it stands for."""
        values = item.weight.array()
        if item.operand.quantization is not None:
            values = item.operand.quantization.real(values)
        return self.criterion.saliency(item.name, values, self.context)


def _nothing(options: PruneOptions, work: Sequence[_Item], skipped: dict[str, str]) -> str:
    if work:
        return (
            f"nothing to prune: granularity {options.granularity} zeroes none of the"
            f" {len(work)} weights at this sparsity or threshold"
        )
    if not skipped:
        return (
            "nothing to prune: the model has no constant weights of convolutions, matrix products"
            " or recurrent layers"
        )
    reason, count = Counter(skipped.values()).most_common(1)[0]
    return (
        f"nothing to prune: all {len(skipped)} weights are left alone,"
        f" {count} of them because: {reason}"
    )
