"""Closed-form repair of a cut or sparse model, by the method that the options name, and the samples it is made on."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.dims import Keep, Tracing
from onnxprune.options import NM, PruneOptions
from onnxprune.plan.weight_plan import Mask, WeightPlan
from onnxprune.progress import Progress
from onnxprune.recover import Fraction, Pattern, compensate_zeros, correct_biases, refit
from onnxprune.runtime.dataset import Dataset
from onnxprune.steps.training import training_options
from onnxprune.train.recovery import seen

__all__ = ["repair", "repair_zeros", "samples_to_fit"]

MOST = 2000
"""Samples used at most: more tell a fit in closed form next to nothing, and every fit walks all of them."""


def samples_to_fit(data: Dataset, options: PruneOptions) -> Dataset:
    """Those that a closed-form repair sees: none of what training holds aside, and not too many."""
    every = seen(data, training_options(options)) if options.recover == "finetune" else data
    return every.some(MOST, options.seed)


def repair(
    tracing: Tracing,
    keep: Keep,
    pruned: ir.Model,
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
) -> str:
    """Repairs a cut model in place: its biases where `recover` is `bias`, else its weights.

    Args:
        tracing: The original.
        keep: What was kept of it.
        pruned: What `cut` made of the two.
        data: Samples.
        options: The method, the providers and the seed.
        progress: Where it is shown.

    Returns:
        What was done, in words.
    """
    if options.recover == "bias":
        count = correct_biases(
            tracing, keep, pruned, data, progress, options.providers, options.seed
        )
        return f"{count} biases were corrected on {len(data)} samples"
    done = refit(tracing, keep, pruned, data, progress, options.providers, options.seed)
    return f"{len(done)} weights were re-fitted on {len(data)} samples"


def repair_zeros(
    model: ir.Model,
    pruned: ir.Model,
    plan: WeightPlan,
    data: Dataset,
    options: PruneOptions,
    progress: Progress,
) -> WeightPlan:
    """Zeroes weights of a copy of a model in place so that the others make up for them.

    Args:
        model: The original.
        pruned: The copy.
        plan: Which tensors get zeros, how many, and where, unless the criterion is `obs`, which chooses as it goes.
        data: Samples.
        options: The criterion, the granularity, the providers and the seed.
        progress: Where it is shown.

    Returns:
        The plan that was carried out.
    """
    kind = options.granularity

    def pattern_of(mask: Mask) -> Pattern:
        if options.criterion != "obs":
            return mask.array()
        return kind if isinstance(kind, NM) else Fraction(mask.count / mask.size)

    return compensate_zeros(
        model,
        pruned,
        plan,
        pattern_of,
        data,
        progress,
        options.providers,
        options.seed,
        options.shapes,
    )
