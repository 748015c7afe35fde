"""What was tried on the way to a target, as a table."""

from __future__ import annotations

from itertools import groupby

from rich.table import Table

from onnxprune.report.columns import columns
from onnxprune.report.data import Report, TrialRow

__all__ = ["trials_table"]


def trials_table(report: Report, verbose: bool) -> Table | None:
    """One row a stage, or with `verbose` one a trial: what it leaves, and how far the outputs moved by it."""
    if not report.trials:
        return None
    table = columns("stage", "left>", "tried>", "chosen by", "repaired by", "outputs moved>", "")
    for _, rows in groupby(report.trials, key=lambda row: (row.route, row.left)):
        every = list(rows)
        for row in every if verbose else (row for row in every if row.taken):
            table.add_row(
                row.route,
                f"{row.left:.3f}",
                str(len(every)),
                row.way,
                row.repair,
                f"{row.error:.3g}",
                _verdict(row, every, verbose),
            )
    return table


def _verdict(row: TrialRow, every: list[TrialRow], verbose: bool) -> str:
    if verbose:
        return "taken" if row.taken else ""
    return f"at most {max(each.error for each in every):.3g}" if len(every) > 1 else ""
