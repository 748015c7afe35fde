"""A report for a reader: tables in a terminal, plain aligned text in a pipe.

From top to bottom: what became of the model, what it costs before and after, where that was taken from, what could
not be touched and why, what onnxruntime measured, what to know.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxprune.report.columns import columns, count
from onnxprune.report.data import DimRow, Report
from onnxprune.report.sensitivity import sensitivity_plot, sensitivity_table
from onnxprune.report.steps import steps_curve, steps_table
from onnxprune.report.trials import trials_table

__all__ = ["headline", "render", "show"]

_WIDTH = 120  # of plain text, where no terminal says how wide it is
_ROWS = 20  # of a table, unless all are asked for
_REASONS = 8


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leaves it to the caller what a reader who has left means; rich would end the program."""
        raise BrokenPipeError


def render(report: Report, file: TextIO, *, verbose: bool = False) -> None:
    """Writes the report to a stream.

    Args:
        report: What to show.
        file: A terminal gets colours and rules, anything else plain text.
        verbose: All rows of all tables.
    """
    terminal = file.isatty()
    console = _Console(
        file=file,
        width=None if terminal else _WIDTH,
        no_color=not terminal or None,
        highlight=False,
        emoji=False,
        markup=False,
        soft_wrap=not terminal,
    )
    show(report, console, verbose=verbose)


def show(report: Report, console: Console, *, verbose: bool) -> None:
    """Prints the report on a console."""
    console.print(Text(headline(report), style="bold"))
    parts = (
        _costs,
        trials_table,
        steps_table,
        steps_curve,
        _dims,
        sensitivity_table,
        sensitivity_plot,
        _layers,
        _tensors,
        _frozen,
        _checks,
        _timings,
    )
    for part in parts:
        table = part(report, verbose)
        if table is not None:
            console.print()
            console.print(table)
    if report.notes:
        console.print()
    for note in report.notes:
        console.print(Text(f"note: {note}"))


def headline(report: Report) -> str:
    """What was done, in a line."""
    match report.command:
        case "inspect":
            return f"{report.input}"
        case "validate":
            return f"{report.input} -> {report.output}"
        case "finetune":
            told = "{epochs} epochs, {optimizer}, learning rate {lr:g}".format(**report.options)
            return f"{report.input} -> {report.output}  ({told})"
    where = report.output or "nothing written"
    return f"{report.input} -> {where}  ({_choices(report.options)})"


def _choices(options: Mapping[str, Any]) -> str:
    """The options that decide what is removed."""
    amounts = ("threshold", "relative_threshold", "sparsity")
    amount = next((name for name in amounts if options.get(name) is not None), None)
    parts = [str(options.get("granularity", ""))]
    if amount is not None:
        parts.append(f"{amount.replace('_', ' ')} {options[amount]:g}")
    if options.get("target"):
        parts.append(str(options["target"]))
    parts.append(str(options.get("criterion", "")))
    if options.get("scope"):
        parts.append(f"scope {options['scope']}")
    if options.get("steps"):
        parts.append(f"{options['steps']} {options['schedule']} steps")
    return ", ".join(part for part in parts if part)


def _costs(report: Report, _verbose: bool) -> Table | None:
    before, after = report.before, report.after
    if before is None:
        return None
    table = columns("", "before>", *(("after>", "left>") if after is not None else ()))
    for label, name in (("parameters", "params"), ("MACs", "macs"), ("bytes", "bytes")):
        old = getattr(before, name)
        new = None if after is None else getattr(after, name)
        if old is None and new is None:
            continue
        table.add_row(label, count(old), *(() if after is None else (count(new), _share(new, old))))
    if after is not None and after.zeros is not None:
        table.add_row("zero weights", count(before.zeros), count(after.zeros), "")
    return table


def _share(part: int | None, whole: int | None) -> str:
    return "-" if part is None or not whole else f"{part / whole:.1%}"


def _dims(report: Report, verbose: bool) -> Table | None:
    rows = [row for row in report.dims if report.command == "inspect" or row.kept < row.size]
    if not rows:
        return None
    inspect = report.command == "inspect"
    headings = ("size>", "params>", "MACs>") if inspect else ("channels>", "kept>", "params>")
    table = columns("Dim", *headings, "")
    for row in rows if verbose else rows[:_ROWS]:
        params, kept = count(row.params), str(row.kept)
        cells = (params, count(row.macs)) if inspect else (kept, params)
        table.add_row(row.name, str(row.size), *cells, _state(row))
    return _with_rest(table, rows, verbose, "Dims")


def _state(row: DimRow) -> str:
    if row.reason:
        return f"frozen: {row.reason}"
    return "inexact" if row.inexact else ""


def _layers(report: Report, verbose: bool) -> Table | None:
    if not report.layers:
        return None
    what = "layer that can be left out" if report.command == "inspect" else "left out"
    table = columns(what, "nodes>", "params>", "MACs>", "outputs moved>")
    for row in report.layers if verbose else report.layers[:_ROWS]:
        moved = "-" if row.moved is None else f"{row.moved:.3g}"
        table.add_row(row.name, str(row.nodes), count(row.params), count(row.macs), moved)
    return _with_rest(table, report.layers, verbose, "layers")


def _tensors(report: Report, verbose: bool) -> Table | None:
    if not report.tensors:
        return None
    table = columns("tensor", "shape", "zeroed>", "share>")
    for row in report.tensors if verbose else report.tensors[:_ROWS]:
        shape = "x".join(map(str, row.shape))
        table.add_row(row.name, shape, count(row.zeroed), _share(row.zeroed, row.size))
    return _with_rest(table, report.tensors, verbose, "tensors")


def _frozen(report: Report, verbose: bool) -> Table | None:
    """Reasons with the number of indices that each freezes, and of weights that each leaves alone."""
    rows = [(reason, f"{number} indices") for reason, number in report.frozen.items()]
    rows += [
        (reason, f"{number} weights")
        for reason, number in Counter(report.skipped.values()).most_common()
    ]
    if not rows:
        return None
    table = columns("left alone because", ">")
    for reason, number in rows if verbose else rows[:_REASONS]:
        table.add_row(reason, number)
    return _with_rest(table, rows, verbose, "reasons", _REASONS)


def _checks(report: Report, _verbose: bool) -> Table | None:
    if not report.checks:
        return None
    table = columns("checked on onnxruntime", "", "")
    for check in report.checks:
        word = {None: "", True: "ok", False: "FAILED"}[check.passed]
        style = {None: "", True: "green", False: "bold red"}[check.passed]
        table.add_row(check.name, Text(word, style=style), check.summary)
    return table


def _timings(report: Report, verbose: bool) -> Table | None:
    if not report.timings or not verbose:
        return None
    table = columns("step", "seconds>")
    for step, seconds in report.timings.items():
        table.add_row(step, f"{seconds:.2f}")
    return table


def _with_rest(
    table: Table, rows: Iterable[Any], verbose: bool, what: str, most: int = _ROWS
) -> Table:
    more = len(tuple(rows)) - most
    if more > 0 and not verbose:
        table.add_row(f"... {more} more {what}, all of them with --verbose")
    return table
