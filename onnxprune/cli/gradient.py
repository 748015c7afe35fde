"""The verb `gradient`: the model of a loss and its gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxprune.cli.shared import FILE, SHAPE

__all__ = ["gradient"]


@click.command("gradient", short_help="Write the model of a loss and its gradients.")
@click.argument("input", type=FILE, metavar="IN.onnx")
@click.argument("output", type=FILE, metavar="OUT.onnx")
@click.option(
    "--loss",
    "losses",
    multiple=True,
    default=("cross-entropy",),
    show_default=True,
    metavar="[WEIGHT*]NAME",
    help="cross-entropy (adds the input `labels`), mse (adds `target`), distillation (adds `teacher`), or the name of "
    "an output, whose elements are summed. Repeatable: the losses are added up, 0.3*mse at .3 of its size.",
)
@click.option(
    "--of",
    "output_name",
    metavar="NAME",
    help="The output that the loss starts from (default: the first).",
)
@click.option("--axis", type=int, default=1, show_default=True, help="Its class axis.")
@click.option("--smoothing", type=float, default=0.0, help="Label smoothing of the cross-entropy.")
@click.option("--temperature", type=float, default=1.0, help="Softens the distillation.")
@click.option(
    "--wrt",
    multiple=True,
    metavar="PATTERN",
    help="Names of weights, inputs or values to differentiate by, such as 'layer1.*' (default: all float weights). "
    "Repeatable.",
)
@SHAPE
@click.option("--quiet", is_flag=True, help="Show errors only.")
def gradient(
    input: Path,
    output: Path,
    output_name: str | None,
    shapes: tuple[str, ...],
    quiet: bool,
    **values: Any,
) -> None:
    """Write a model whose outputs are a loss and its gradients, in ordinary ONNX ops: `loss`, then `<name>.grad`."""
    from onnxprune.options import parse_shape
    from onnxprune.sampling.export import GradientOptions, write_gradient

    given = dict(parse_shape(text) for text in shapes)
    options = GradientOptions(output=output_name, shapes=given, **values)
    made = write_gradient(input, output, options)
    if not quiet:
        takes = ", ".join(value.name or "" for value in made.graph.inputs)
        click.echo(
            f"{output}: takes {takes}; gives loss and {len(made.graph.outputs) - 1} gradients"
        )
