"""Closed-form repair of a cut model, by the method that the options name."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.dims import Keep, Tracing
from onnxprune.options import PruneOptions
from onnxprune.progress import Progress
from onnxprune.recover import correct_biases, refit
from onnxprune.runtime.dataset import Dataset

__all__ = ["repair"]


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
