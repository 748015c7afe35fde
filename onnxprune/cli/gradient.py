"""The verb `gradient`: the model of a loss and its gradients."""

from __future__ import annotations

from pathlib import Path

import click

from onnxprune.cli.shared import FILE

__all__ = ["gradient"]


@click.command("gradient", short_help="Write the model of a loss and its gradients.")
@click.argument("input", type=FILE, metavar="IN.onnx")
@click.argument("output", type=FILE, metavar="OUT.onnx")
@click.option(
    "--loss",
    default="cross-entropy",
    show_default=True,
    metavar="NAME",
    help="cross-entropy (adds the input `labels`), mse (adds `target`), distillation (adds `teacher`), or the name of "
    "an output, whose elements are summed.",
)
@click.option(
    "--of",
    "start",
    metavar="NAME",
    help="The output that the loss starts from (default: the first).",
)
@click.option("--axis", type=int, default=1, show_default=True, help="Its class axis.")
@click.option(
    "--wrt",
    multiple=True,
    metavar="PATTERN",
    help="Names of weights, inputs or values to differentiate by, such as 'layer1.*' (default: all float weights). "
    "Repeatable.",
)
@click.option("--quiet", is_flag=True, help="Show errors only.")
def gradient(
    input: Path,
    output: Path,
    loss: str,
    start: str | None,
    axis: int,
    wrt: tuple[str, ...],
    quiet: bool,
) -> None:
    """Write a model whose outputs are a loss and its gradients, in ordinary ONNX ops: `loss`, then `<name>.grad`."""
    from onnxprune.sampling.export import write_gradient

    made = write_gradient(input, output, loss, wrt, start, axis)
    if not quiet:
        takes = ", ".join(value.name or "" for value in made.graph.inputs)
        click.echo(
            f"{output}: takes {takes}; gives loss and {len(made.graph.outputs) - 1} gradients"
        )
