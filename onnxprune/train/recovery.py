"""Training as the last step of pruning."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.train.batchnorm import reestimate
from onnxprune.train.blocks import Kept
from onnxprune.train.finetune import fit, split
from onnxprune.train.fit import Finetuned
from onnxprune.train.options import TrainOptions

__all__ = ["reestimated", "retrained", "seen"]


def seen(data: Dataset, options: TrainOptions) -> Dataset:
    """The samples that training sees; what repairs the model before it must see no others either."""
    return split(data, options)[0]


def reestimated(
    pruned: ir.Model, data: Dataset, progress: Progress, providers: Sequence[str]
) -> str:
    """Gives the pruned model's BatchNormalizations the statistics of the data, in place.

    Returns:
        What was done, in words.

    Raises:
        NothingToPruneError: There are none.
    """
    count = reestimate(pruned, data, providers=providers, progress=progress)
    return f"{count} BatchNormalizations were re-estimated on {len(data)} samples"


def retrained(
    original: ir.Model,
    pruned: ir.Model,
    data: Dataset,
    options: TrainOptions,
    progress: Progress,
    kept: Kept | None = None,
) -> Finetuned:
    """The pruned model, trained to follow the original, and the labels where there are any.

    Where training diverges before it has improved the model it is the model as it was, and says so.

    Raises:
        KeyboardInterrupt: The user ended it before it had improved the model.
    """
    done = fit(pruned, data, original, options, kept=kept, progress=progress)
    if done.trained.best_epoch == 0 and done.trained.interrupted:
        raise KeyboardInterrupt
    return done
