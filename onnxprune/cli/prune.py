"""The verb `prune`: the default."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.shared import (
    DATA,
    EXCLUDE,
    FILE,
    INEXACT,
    LATENCY,
    OUTPUT,
    PROVIDER,
    REPORT,
    SEED,
    SHAPE,
    show,
    stated,
)
from onnxprune.cli.training import NAMES, training

__all__ = ["prune"]


@click.command("prune", short_help="Prune a model (the default).")
@click.argument("input", type=FILE, metavar="IN.onnx")
@click.argument("output", type=FILE, metavar="OUT.onnx", required=False)
@click.option(
    "-g",
    "--granularity",
    default="channel",
    show_default=True,
    metavar="KIND",
    help="channel: cut channels out, a smaller and faster model. layer: leave out whole layers that a residual "
    "connection goes round. weight, N:M such as 2:4, block:RxC such as block:4x1: write zeros, which do not make CPU "
    "inference faster.",
)
@click.option("-s", "--sparsity", type=float, help="Fraction to remove, 0 <= s < 1 (default 0.5).")
@click.option(
    "--target",
    metavar="WHAT=FRACTION",
    help="What may be left, instead of a sparsity: macs=0.5, params=0.5, bytes=0.5, or latency=0.5 of the time that a "
    "run takes, measured here on the --provider. Each Dim gets the width that loses least. Or drop=0.01: as little as "
    "loses no more than so much accuracy (without labels agreement with the original), measured on samples held aside.",
)
@click.option(
    "--threshold",
    type=float,
    metavar="EPS",
    help="Zero weights with |w| <= EPS, or of the criterion gradient with |dL/dw| <= EPS.",
)
@click.option(
    "--relative-threshold",
    type=float,
    metavar="THETA",
    help="Zero weights with |w| <= THETA * sum |w| of their tensor.",
)
@click.option(
    "-c",
    "--criterion",
    default="auto",
    metavar="NAME",
    help="How much a weight or a channel matters: magnitude (groups by L2 norm), l1, random; of weights lamp; of "
    "channels bn-scale, fpgm. With --data also wanda |w| ||x||; of channels obs, what is lost once the rest has been "
    "re-fitted, activation, entropy; of layers outputs, how far those move without one; on gradients taylor |w dL/dw|, "
    "fisher (w dL/dw)^2, hessian, gradient |dL/dw| (default: of layers outputs; else obs with --data, but for blocks "
    "and thresholds; else magnitude).",
)
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default=None,
    help="What competes with what: the channels or weights of one layer, or of the whole model. With a target layer "
    "leaves the same share of every layer (default: global for channels with a target and for weights by obs, else "
    "layer).",
)
@DATA
@click.option(
    "--recover",
    type=click.Choice(["none", "bias", "lstsq", "bn", "finetune"]),
    default=None,
    help="How accuracy is repaired on --data: lstsq re-fits the weights in closed form, without labels; bias only adds "
    "to biases what removed channels gave on average; bn re-estimates the statistics of BatchNormalization; finetune "
    "trains, on labels and on what the original says, after lstsq where channels are cut (default: lstsq where the "
    "criterion is obs, else none).",
)
@training
@click.option(
    "--steps",
    type=int,
    metavar="N",
    help="Prune in N steps, each cut, repaired and evaluated on samples held aside; --epochs are divided over them. "
    "Killed, the same command goes on from the last step.",
)
@click.option(
    "--schedule",
    type=click.Choice(["linear", "cubic", "exponential"]),
    default="cubic",
    show_default=True,
    help="How much is gone after each step: the same amount at each, much at first, or a share of what is left.",
)
@click.option(
    "--rewind",
    type=click.Choice(["none", "weights"]),
    default="none",
    show_default=True,
    help="weights: at each step the weights that survive get the original's values before they are repaired.",
)
@click.option(
    "--checkpoint",
    type=FILE,
    metavar="DIR",
    help="Where the steps done are kept until OUT is written (default: OUT.checkpoint beside it).",
)
@EXCLUDE
@click.option(
    "--min-channels", type=int, default=1, show_default=True, help="Least channels a Dim keeps."
)
@click.option(
    "--round-to",
    type=int,
    metavar="N",
    help="Keep multiples of N channels (default: what the machine's kernels like; 1: off).",
)
@INEXACT
@SHAPE
@PROVIDER
@click.option("--plan", type=FILE, metavar="FILE", help="Write the plan, JSON.")
@REPORT
@click.option(
    "--sparse-format",
    is_flag=True,
    help="Store zeroed tensors as ONNX sparse initializers where that saves bytes.",
)
@click.option("--dry-run", is_flag=True, help="Plan and report, write no model.")
@LATENCY
@SEED
@OUTPUT
def prune(input: Path, output: Path | None, verbose: bool, quiet: bool, **values: Any) -> None:
    """Prune a model."""
    from onnxprune.api import run_prune
    from onnxprune.options import PruneOptions
    from onnxprune.progress import on_stderr

    given = stated(values)
    train = {name: given.pop(name) for name in NAMES & given.keys()}
    options = PruneOptions.of(**given, train=train or None)
    show(run_prune(input, output, options, on_stderr(quiet)), verbose, quiet)
