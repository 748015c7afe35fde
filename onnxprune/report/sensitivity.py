"""What each further cut of a Dim costs, as a table and as a plot.

Losses differ by orders of magnitude between Dims and between the first cut of one and its last, so the plot is
logarithmic, with one scale for all: a column for each share removed, high where much is lost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from onnxprune.plan.losses import CUTS
from onnxprune.report.columns import columns
from onnxprune.report.data import DimRow, Report

__all__ = ["sensitivity_plot", "sensitivity_table"]

_SHOWN = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
_ROWS = 20
_BLOCKS = "▁▂▃▄▅▆▇█"
_DECADES = 4
"""Below the largest loss, that the plot shows."""
_NAME = 36


def sensitivity_table(report: Report, verbose: bool) -> Table | None:
    """A row a Dim: the loss of the outputs once a share of it is removed, all else whole."""
    rows = _rows(report, verbose)
    if not rows:
        return None
    table = columns("loss, with so much of it removed", *(f"{share:.1%}>" for share in _SHOWN))
    where = [CUTS.index(share) for share in _SHOWN]
    for row in rows:
        table.add_row(row.name, *(f"{row.losses[k]:.2g}" for k in where))
    more = len(_measured(report)) - len(rows)
    if more > 0:
        table.add_row(f"... {more} more Dims, all of them with --verbose")
    return table


def sensitivity_plot(report: Report, verbose: bool) -> Text | None:
    """A line a Dim: from left to right more of it is removed, the higher the more is lost."""
    rows = _rows(report, verbose)
    high = max((loss for row in rows for loss in row.losses), default=0.0)
    if high <= 0:
        return None
    low = high * 10**-_DECADES
    width = min(_NAME, max(len(row.name) for row in rows))
    scale = f"{_BLOCKS[0]} {low:.1g} or less, {_BLOCKS[-1]} {high:.2g}"
    lines = [f"{'removed':<{width}}  0 {'%':<{len(CUTS) - 6}}100 %  loss: {scale}"]
    for row in rows:
        line = "".join(_BLOCKS[_height(loss, low, high)] for loss in row.losses)
        lines.append(f"{row.name[-width:]:<{width}}  {line}")
    return Text("\n".join(lines))


def _measured(report: Report) -> Sequence[DimRow]:
    return [row for row in report.dims if row.losses]


def _rows(report: Report, verbose: bool) -> Sequence[DimRow]:
    found = _measured(report)
    return found if verbose else found[:_ROWS]


def _height(loss: float, low: float, high: float) -> int:
    share = math.log(max(loss, low) / low) / math.log(high / low)
    return min(round(share * (len(_BLOCKS) - 1)), len(_BLOCKS) - 1)
