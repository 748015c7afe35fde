"""What a criterion knows besides the weights, gathered by running the model, and the saliency of every index by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.calibrate.activations import Activations, input_norms, observe
from onnxprune.calibrate.contraction import contractions, data_axis
from onnxprune.dims import Dim, DimInfo, Tracing, leaves, trace
from onnxprune.errors import OptionError
from onnxprune.graph import Weight
from onnxprune.graph.patterns import is_named
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import channel_scores, scored_weights
from onnxprune.plan.contraction import operands
from onnxprune.plan.gradients import element_context, masks_context
from onnxprune.plan.weights import weight_names
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure
from onnxprune.scores import Context, get_criterion

__all__ = ["channel_saliencies", "context_for_masks"]

Array = np.ndarray


def channel_saliencies(
    tracing: Tracing,
    dims: Sequence[DimInfo],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> dict[Dim, Array]:
    """The saliency of every index of every Dim that the criterion has an opinion on, float64, (dim.size,).

    Raises:
        OptionError: It has none on any Dim, or needs samples and there are none.
    """
    criterion = get_criterion(options.criterion)
    wanted = {info.dim for info in dims}
    if criterion.channels is not None:
        reads = set(wanted) if criterion.needs_data else set()
        found = criterion.channels(tracing, wanted, _seen(tracing, reads, options, data, progress))
        if not found:
            raise OptionError(
                f"the criterion {criterion.name} ({criterion.summary}) finds nothing to go by here: use another"
            )
        return found
    context = Context(options.seed)
    chosen = scored_weights(tracing, dims)
    if criterion.on_gradients:
        context = element_context(tracing.model, chosen, options, data, progress)
    elif criterion.statistic:
        norms = input_norms(_seen(tracing, wanted, options, data, progress))
        one = np.ones((), np.float32)  # vectors and tables multiply nothing
        known = {name: norms.get(weight.value, one) for name, weight in chosen.items()}
        context = Context(options.seed, {criterion.statistic: known})
    return channel_scores(tracing, dims, criterion, context)


def context_for_masks(
    model: ir.Model, options: PruneOptions, data: Dataset | None, progress: Progress
) -> Context:
    """What the criterion needs to know about the weights that masks may touch.

    Raises:
        OptionError: What a weight multiplies cannot be seen.
    """
    criterion = get_criterion(options.criterion)
    if criterion.on_gradients or not criterion.statistic:
        return masks_context(model, options, data, progress)
    tracing = trace(model, measure(model, _shapes(options, data)))
    norms = input_norms(_seen(tracing, None, options, data, progress))
    names = weight_names(model)
    chosen: dict[str, Weight] = {
        names[operand.weight.value]: operand.weight
        for operand in operands(model)[0]
        if not is_named(operand.names, options.exclude)
    }
    for name, weight in chosen.items():
        if weight.value not in norms:
            raise OptionError(
                f"the criterion {criterion.name} cannot see what the weight {name!r} multiplies (it is quantised, in a"
                " branch or loop, or no plain matrix): --exclude it or use another criterion"
            )
    known = {name: norms[weight.value] for name, weight in chosen.items()}
    return Context(options.seed, {criterion.statistic: known})


def _shapes(options: PruneOptions, data: Dataset | None) -> Mapping[str, Sequence[int]]:
    return {**({} if data is None else data.shapes_of_one), **options.shapes}


def _seen(
    tracing: Tracing,
    dims: set[Dim] | None,
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> list[Activations]:
    """The activations that carry some Dims (None: all); none where no Dim is asked for."""
    if dims is not None and not dims:
        return []
    if data is None:
        raise OptionError(
            f"the criterion {options.criterion} runs the model on samples: give some with --data"
        )
    wanted = [
        each
        for each in contractions(tracing, most=None)
        if dims is None or dims.intersection(leaves(data_axis(each, tracing)))
    ]
    return observe(tracing, wanted, data, progress, options.providers)
