"""The verb `finetune`: training alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.shared import FILE, OUTPUT, REPORT, show, stated
from onnxprune.cli.training import training

__all__ = ["finetune"]


@click.command("finetune", short_help="Train a model, pruned or not, on data.")
@click.argument("input", type=FILE, metavar="IN.onnx")
@click.argument("output", type=FILE, metavar="OUT.onnx")
@click.option(
    "--data",
    type=FILE,
    metavar="PATH",
    required=True,
    help="Samples to train on: .npz (keys are input names, optional `labels`), .npy, a folder of class folders of "
    "images, or a folder of ONNX test_data_set folders.",
)
@click.option(
    "--teacher",
    type=FILE,
    metavar="MODEL",
    help="The original model: its outputs are to be followed. Needed where there are no labels.",
)
@click.option(
    "--eval-data",
    "evaluation",
    type=FILE,
    metavar="PATH",
    help="Other samples to compare the model on, before and after.",
)
@training
@click.option(
    "--relative/--absolute",
    default=None,
    help="Of adamw: whether --lr is relative to the size of each weight's numbers (default: without labels and --lr).",
)
@click.option("--momentum", type=float, help="Of SGD (default .9).")
@click.option("--nesterov", is_flag=True, default=None, help="Of SGD: look ahead.")
@click.option(
    "--weight-decay",
    type=float,
    help="Of matrices and kernels (default 0; .0005 where SGD is the default).",
)
@click.option(
    "--lr-schedule",
    "schedule",
    type=click.Choice(["constant", "cosine", "one-cycle"]),
    help="How the learning rate goes (default: cosine after a short warm-up).",
)
@click.option("--warmup", type=float, metavar="SHARE", help="Share of the steps (default .05).")
@click.option("--clip-value", type=float, help="Largest gradient of one weight (default: off).")
@click.option("--ema", type=float, metavar="DECAY", help="Keep a moving average of the weights.")
@click.option(
    "--batchnorm",
    type=click.Choice(["auto", "live", "frozen"]),
    help="Statistics of BatchNormalization: of each batch, or as they are (default: live where possible).",
)
@click.option(
    "--unfold/--folded",
    default=None,
    help="Whether BatchNormalization that was folded into convolutions is put back while training (default: with 1000 "
    "samples or more).",
)
@click.option("--label-smoothing", "smoothing", type=float, help="Default 0.")
@click.option(
    "--temperature", type=float, help="Of following class scores (default 2, with labels 4)."
)
@click.option(
    "--alpha", type=float, help="Share of the teacher where there are labels too (default .7)."
)
@click.option(
    "--features",
    type=float,
    metavar="WEIGHT",
    help="Follow the teacher's values between blocks too (default 0).",
)
@click.option(
    "--hold-aside",
    "held_aside",
    type=float,
    metavar="SHARE",
    help="Share of the samples, 1000 at most, that is not trained on and decides which epoch is best (default .1).",
)
@click.option(
    "--keep-zeros/--free-zeros",
    default=None,
    help="Whether zeros of pruned weights stay zero (default: yes).",
)
@click.option("--include", multiple=True, metavar="PATTERN", help="Train these only. Repeatable.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Do not train. Repeatable.")
@click.option("--provider", "providers", multiple=True, metavar="NAME", help="As of pruning.")
@click.option("--seed", type=int, help="Of everything random (default 0).")
@REPORT
@OUTPUT
def finetune(input: Path, output: Path, verbose: bool, quiet: bool, **values: Any) -> None:
    """Train a model on labels, on what the original says (--teacher), or on both.

    The epoch that does best on the samples held aside is what is written; Ctrl-C ends with the best so far.
    """
    from onnxprune.api import finetune as run
    from onnxprune.progress import on_stderr

    show(run(input, output, progress=on_stderr(quiet), **stated(values)), verbose, quiet)
