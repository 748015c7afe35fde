"""The steps of progressive pruning as a table, and as a curve of the accuracy over what is left."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from onnxprune.report.columns import columns, count
from onnxprune.report.data import Report, StepRow

__all__ = ["steps_curve", "steps_table"]

_CURVE = 50  # characters
_LEAST_SPAN = 0.02  # of the accuracy, so that noise does not look like a cliff


def steps_table(report: Report, _verbose: bool) -> Table | None:
    """One row a step: what is left, and the accuracy before and after the repair."""
    if not report.steps:
        return None
    first = report.steps[0]
    cut_out = first.macs is not None
    left = ("MACs>", "left>") if cut_out else ("zero weights>",)
    table = columns(
        "step", *left, "parameters>", f"{first.metric}, cut>", "repaired>", "seconds>", ""
    )
    for row in report.steps:
        cells = (count(row.macs), _share(row, first)) if cut_out else (count(row.zeros or 0),)
        before = "" if row.cut is None else f"{row.cut:.2%}"
        verdict = "" if row.held else f"taken back: may lose {row.bound:.2%}"
        number = str(row.number) if row.number else "original"
        table.add_row(
            number,
            *cells,
            count(row.params),
            before,
            f"{row.recovered:.2%}",
            f"{row.seconds:.1f}",
            verdict,
        )
    return table


def steps_curve(report: Report, _verbose: bool) -> Text | None:
    """A line a step: `o` is the accuracy after the cut, `*` after the repair."""
    rows = report.steps
    if len(rows) < 2:
        return None
    known = [value for row in rows for value in (row.cut, row.recovered) if value is not None]
    high = max(known)
    low = min(*known, high - _LEAST_SPAN)
    lines = [f"{'left':>8}  {low:<{_CURVE - 7}.2%}{high:>7.2%}  o cut, * repaired"]
    for row in sorted(rows, key=lambda row: -_left(row, rows[0])):
        line = [" "] * _CURVE
        for value, mark in ((row.cut, "o"), (row.recovered, "*")):
            if value is not None:
                line[round((value - low) / (high - low) * (_CURVE - 1))] = mark
        lines.append(f"{_left(row, rows[0]):>8.1%}  {''.join(line).rstrip()}")
    return Text("\n".join(lines))


def _share(row: StepRow, first: StepRow) -> str:
    return f"{_left(row, first):.1%}"


def _left(row: StepRow, first: StepRow) -> float:
    """What is left: of the MACs, or of the weights that are not zero."""
    if row.macs is not None and first.macs:
        return row.macs / first.macs
    return 1.0 - (row.zeros or 0) / max(row.params, 1)
