"""The verb `inspect`: what can be cut, what not and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.shared import (
    EXCLUDE,
    FILE,
    INEXACT,
    OUTPUT,
    PROVIDER,
    REPORT,
    SEED,
    SHAPE,
    show,
    stated,
)

__all__ = ["inspect"]


@click.command("inspect", short_help="Show what can be cut, what not and why.")
@click.argument("input", type=FILE, metavar="IN.onnx")
@click.option(
    "--data",
    type=FILE,
    metavar="PATH",
    help="Samples, as for pruning: what each further cut of every Dim costs is measured on them.",
)
@EXCLUDE
@INEXACT
@SHAPE
@PROVIDER
@REPORT
@SEED
@OUTPUT
def inspect(input: Path, verbose: bool, quiet: bool, **values: Any) -> None:
    """Show the Dims of a model, what is frozen and why, and what it costs."""
    from onnxprune.api import inspect
    from onnxprune.progress import on_stderr

    show(inspect(input, on_stderr(quiet), **stated(values)), verbose, quiet)
