"""The verb `validate`: one model held against another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.shared import (
    DATA,
    FILE,
    LATENCY,
    OUTPUT,
    PROVIDER,
    REPORT,
    SEED,
    SHAPE,
    show,
    stated,
)

__all__ = ["validate"]


@click.command("validate", short_help="Compare two models: drift, accuracy, latency.")
@click.argument("before", type=FILE, metavar="A.onnx")
@click.argument("after", type=FILE, metavar="B.onnx")
@DATA
@SHAPE
@PROVIDER
@REPORT
@LATENCY
@SEED
@OUTPUT
def validate(before: Path, after: Path, verbose: bool, quiet: bool, **values: Any) -> None:
    """Measure drift, accuracy and latency of B against A, on data or on seeded random inputs."""
    from onnxprune.api import validate
    from onnxprune.progress import on_stderr

    show(validate(before, after, on_stderr(quiet), **stated(values)), verbose, quiet)
