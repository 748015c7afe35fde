"""The options of training, which `finetune` has, and pruning with `--recover finetune`."""

from __future__ import annotations

import click

from onnxprune.cli.shared import options

__all__ = ["NAMES", "training"]

training = options(
    click.option(
        "--epochs",
        type=int,
        help="How often all samples are seen (default 10; less than 1000 without labels as often as makes 10000).",
    ),
    click.option(
        "--batch-size",
        type=int,
        metavar="N",
        help="Samples a step (default 32, without labels 16, of 4000 samples or more 64).",
    ),
    click.option(
        "--lr",
        type=float,
        help="Learning rate at its highest (default .001, of SGD .025 by 64 samples a step; "
        "lower where that does harm).",
    ),
    click.option(
        "--optimizer",
        type=click.Choice(["auto", "adamw", "sgd"]),
        help="Default: sgd with labels and BatchNormalization, else adamw.",
    ),
    click.option(
        "--clip-norm", type=float, help="Largest global norm of the gradients (default 1; 0: off)."
    ),
    click.option(
        "--block-epochs",
        type=int,
        metavar="N",
        help="How often each block of the model sees the samples when the blocks learn one by one what the original's "
        "give, before the whole is trained (default: 40 where there are no labels, else 0).",
    ),
    click.option(
        "--augment",
        metavar="WAYS",
        help="Move images about: none, or some of flip,crop,zoom,mix (default: all without labels; with them those of "
        "flip,crop that leave them right).",
    ),
    click.option("--l1", type=float, help="Weight of sum |w| in the loss (default 0)."),
    click.option("--l2", type=float, help="Weight of sum w^2 / 2 in the loss (default 0)."),
    click.option(
        "--group-lasso",
        type=float,
        metavar="STRENGTH",
        help="Weight of the norms of whole channels in the loss, which drives some to zero (default 0).",
    ),
)


@click.command()
@training
def _alone() -> None:
    """What the options are put on, to hear their names."""


NAMES = frozenset(each.name for each in _alone.params if each.name)
"""What `training` adds."""
