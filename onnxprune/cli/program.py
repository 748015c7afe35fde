"""The program: its verbs, and what its exit code says.

0 done, 1 the model or the machine does not allow it (one line on stderr), 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from onnxprune import __version__
from onnxprune.cli.finetune import finetune
from onnxprune.cli.gradient import gradient
from onnxprune.cli.inspect import inspect
from onnxprune.cli.prune import prune
from onnxprune.cli.validate import validate
from onnxprune.errors import OnnxPruneError, OptionError

__all__ = ["main"]


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


@click.group(cls=_DefaultVerb, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="onnxprune")
def _program() -> None:
    """Prune exported ONNX models with onnxruntime alone: remove channels, or zero weights, and prove that the result
    is exact.
    """  # noqa: D205


for _verb in (prune, inspect, validate, finetune, gradient):
    _program.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program.

    Args:
        arguments: Without the program's name; None: those of the process.

    Returns:
        The exit code.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed; the next file opened would be taken for it
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
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
