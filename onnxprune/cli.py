"""The command line. Everything heavy is imported inside the commands, so that `--help` answers at once.

Exit codes: 0 done, 1 the model or the machine does not allow it (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune import __version__
from onnxprune.cli_finetune import TRAINING, finetune, training
from onnxprune.cli_gradient import gradient
from onnxprune.errors import OnnxPruneError, OptionError

if TYPE_CHECKING:
    from onnxprune.report import Report

__all__ = ["main"]

_Decorator = Callable[[Callable[..., None]], Callable[..., None]]
_FILE = click.Path(path_type=Path)


class _Interrupted(Exception):
    """Ctrl-C."""


class _DefaultVerb(click.Group):
    """A group whose first command, `prune`, need not be named; its options are the program's."""

    default = "prune"

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Puts the default verb in front of arguments that begin with no verb."""
        if not args:
            click.echo(ctx.get_help(), err=True)
            ctx.exit(2)
        if args[0] not in self.commands and args[0] not in ("-h", "--help", "--version"):
            args = [self.default, *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Keeps an interrupt and a closed pipe from click, which would add an empty line or exit with 1."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted(str(error)) from None
        except BrokenPipeError:  # the reader of the report has left, as `head` does
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The four forms, one a line."""
        forms = (
            "IN.onnx OUT.onnx [OPTIONS]",
            "inspect IN.onnx [OPTIONS]",
            "validate A.onnx B.onnx [OPTIONS]",
            "gradient IN.onnx OUT.onnx [OPTIONS]",
            "finetune IN.onnx OUT.onnx --data PATH [OPTIONS]",
        )
        for form in forms:
            formatter.write_usage("onnxprune", form)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of the default verb, then the verbs."""
        self.commands[self.default].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


def _options(*decorators: _Decorator) -> _Decorator:
    def apply(function: Callable[..., None]) -> Callable[..., None]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


_DATA = click.option(
    "--data",
    type=_FILE,
    metavar="PATH",
    help="Samples to check and measure on: .npz (keys are input names, optional `labels`), .npy, a folder of class "
    "folders of images, a folder of ONNX test_data_set folders, or the word synthetic: made-up samples.",
)
_PROVIDER = click.option(
    "--provider",
    "providers",
    multiple=True,
    metavar="NAME",
    help="onnxruntime execution provider: cpu (default), cuda, or any of its names. Repeatable, in order.",
)
_SHAPE = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="NAME=SIZES",
    help="Shape of an input with open axes, such as image=1x3x224x224 (default: found by trying). Repeatable.",
)
_SEED = click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
_REPORT = click.option(
    "--report", type=_FILE, metavar="FILE", help="Write the report: .json as data, .html as a page."
)
_LATENCY = click.option(
    "--latency/--no-latency", "check_latency", default=True, help="Measure latency (default: yes)."
)
_OUTPUT = _options(
    click.option("--verbose", is_flag=True, help="Show all rows of all tables, and timings."),
    click.option("--quiet", is_flag=True, help="Show errors only."),
)
_EXCLUDE = click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Names of tensors or nodes never to touch, such as 'head.*'. Repeatable.",
)
_INEXACT = click.option(
    "--allow-inexact",
    is_flag=True,
    help="Also cut Dims that a normalisation or mean runs over: cutting is then not the same as zeroing.",
)


@click.group(cls=_DefaultVerb, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnxprune")
def _program() -> None:
    """Prune exported ONNX models with onnxruntime alone: remove channels, or zero weights, and prove that the result
    is exact.
    """  # noqa: D205


@_program.command("prune", short_help="Prune a model (the default).")
@click.argument("input", type=_FILE, metavar="IN.onnx")
@click.argument("output", type=_FILE, metavar="OUT.onnx", required=False)
@click.option(
    "-g",
    "--granularity",
    default="channel",
    show_default=True,
    metavar="KIND",
    help="channel: cut channels out, a smaller and faster model. weight, N:M such as 2:4, block:RxC such as "
    "block:4x1: write zeros, which do not make CPU inference faster.",
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
    "re-fitted, activation, entropy; on gradients taylor |w dL/dw|, fisher (w dL/dw)^2, hessian, gradient |dL/dw| "
    "(default: obs with --data, but for blocks and thresholds; else magnitude).",
)
@click.option(
    "--scope",
    type=click.Choice(["layer", "global"]),
    default="layer",
    show_default=True,
    help="What competes with what: the channels or weights of one layer, or of the whole model.",
)
@_DATA
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
    type=_FILE,
    metavar="DIR",
    help="Where the steps done are kept until OUT is written (default: OUT.checkpoint beside it).",
)
@_EXCLUDE
@click.option(
    "--min-channels", type=int, default=1, show_default=True, help="Least channels a Dim keeps."
)
@click.option(
    "--round-to",
    type=int,
    metavar="N",
    help="Keep multiples of N channels (default: what the machine's kernels like; 1: off).",
)
@_INEXACT
@_SHAPE
@_PROVIDER
@click.option("--plan", type=_FILE, metavar="FILE", help="Write the plan, JSON.")
@_REPORT
@click.option(
    "--sparse-format",
    is_flag=True,
    help="Store zeroed tensors as ONNX sparse initializers where that saves bytes.",
)
@click.option("--dry-run", is_flag=True, help="Plan and report, write no model.")
@_LATENCY
@_SEED
@_OUTPUT
def _prune(input: Path, output: Path | None, verbose: bool, quiet: bool, **values: Any) -> None:
    """Prune a model."""
    from onnxprune.api import run_prune
    from onnxprune.options import PruneOptions
    from onnxprune.progress import on_stderr

    options = PruneOptions.of(**_given(values))
    _show(run_prune(input, output, options, on_stderr(quiet)), verbose, quiet)


@_program.command("inspect", short_help="Show what can be cut, what not and why.")
@click.argument("input", type=_FILE, metavar="IN.onnx")
@click.option(
    "--data",
    type=_FILE,
    metavar="PATH",
    help="Samples, as for pruning: what each further cut of every Dim costs is measured on them.",
)
@_EXCLUDE
@_INEXACT
@_SHAPE
@_PROVIDER
@_REPORT
@_SEED
@_OUTPUT
def _inspect(input: Path, verbose: bool, quiet: bool, **values: Any) -> None:
    """Show the Dims of a model, what is frozen and why, and what it costs."""
    from onnxprune.api import inspect
    from onnxprune.progress import on_stderr

    _show(inspect(input, on_stderr(quiet), **_given(values)), verbose, quiet)


@_program.command("validate", short_help="Compare two models: drift, accuracy, latency.")
@click.argument("before", type=_FILE, metavar="A.onnx")
@click.argument("after", type=_FILE, metavar="B.onnx")
@_DATA
@_SHAPE
@_PROVIDER
@_REPORT
@_LATENCY
@_SEED
@_OUTPUT
def _validate(before: Path, after: Path, verbose: bool, quiet: bool, **values: Any) -> None:
    """Measure drift, accuracy and latency of B against A, on data or on seeded random inputs."""
    from onnxprune.api import validate
    from onnxprune.progress import on_stderr

    _show(validate(before, after, on_stderr(quiet), **_given(values)), verbose, quiet)


_program.add_command(finetune)
_program.add_command(gradient)


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Without what nobody named: an empty list of providers is not a choice of none."""
    train = {k: v for k in TRAINING if (v := values.pop(k, None)) is not None}
    return {
        k: v
        for k, v in {**values, "train": train or None}.items()
        if not ((k == "providers" and not v) or (k in ("recover", "train") and v is None))
    }


def _show(report: Report, verbose: bool, quiet: bool) -> None:
    if quiet:
        return
    from onnxprune.report import render

    render(report, sys.stdout, verbose=verbose)
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    try:
        code = _program.main(
            None if arguments is None else list(arguments), "onnxprune", standalone_mode=False
        )
    except (click.UsageError, OptionError) as error:
        return _fail(_message(error), 2)
    except (click.ClickException, OnnxPruneError) as error:
        return _fail(_message(error), 1)
    except (_Interrupted, click.Abort, KeyboardInterrupt) as error:
        return _fail(": ".join(["interrupted", *filter(None, [str(error)])]), 130)
    except MemoryError:
        return _fail("out of memory: close other programs or use a machine with more", 1)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}", 1)
    return code if isinstance(code, int) else 0


def _message(error: Exception) -> str:
    text = error.format_message() if isinstance(error, click.ClickException) else str(error)
    return " ".join(text.split())


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
