"""Options that several verbs have, and how a verb shows its report."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from onnxprune.report import Report

__all__ = [
    "DATA",
    "EXCLUDE",
    "FILE",
    "INEXACT",
    "LATENCY",
    "OUTPUT",
    "PROVIDER",
    "REPORT",
    "SEED",
    "SHAPE",
    "Decorator",
    "options",
    "show",
    "stated",
]

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
FILE = click.Path(path_type=Path)


def options(*decorators: Decorator) -> Decorator:
    """Several options as one, in this order."""

    def apply(function: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


DATA = click.option(
    "--data",
    type=FILE,
    metavar="PATH",
    help="Samples to check and measure on: .npz (keys are input names, optional `labels`), .npy, a folder of class "
    "folders of images, a folder of ONNX test_data_set folders, or the word synthetic: made-up samples.",
)
PROVIDER = click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="onnxruntime execution provider: cpu (default), cuda, or any of its names. Repeatable, in order.",
)
SHAPE = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Shape of an input with open axes, such as image=1x3x224x224 (default: found by trying). Repeatable.",
)
SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
REPORT = click.option(
    "--report", type=FILE, metavar="FILE", help="Write the report: .json as data, .html as a page."
)
LATENCY = click.option(
    "--latency/--no-latency", "check_latency", default=True, help="Measure latency (default: yes)."
)
OUTPUT = options(
    click.option("--verbose", is_flag=True, help="Show all rows of all tables, and timings."),
    click.option("--quiet", is_flag=True, help="Show errors only."),
)
EXCLUDE = click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Names of tensors or nodes never to touch, such as 'head.*'. Repeatable.",
)
INEXACT = click.option(
    "--allow-inexact",
    is_flag=True,
    help="Also cut Dims that a normalisation or mean runs over: cutting is then not the same as zeroing.",
)


def stated(values: dict[str, Any]) -> dict[str, Any]:
    """Without what nobody named: an empty list is not a choice of none."""
    return {name: value for name, value in values.items() if value not in (None, ())}


def show(report: Report, verbose: bool, quiet: bool) -> None:
    """The report on stdout."""
    if quiet:
        return
    from onnxprune.report import render

    render(report, sys.stdout, verbose=verbose)
    sys.stdout.flush()
