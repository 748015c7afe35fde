"""What each further cut costs, as a table and as a plot."""

from __future__ import annotations

import io
from dataclasses import replace

from onnxprune.plan.losses import CUTS
from onnxprune.report import Cost, DimRow, Report, render
from onnxprune.report.sensitivity import sensitivity_plot, sensitivity_table

STEEP = DimRow("steep:0", 64, 64, losses=tuple(10.0 ** (k - 14) for k in range(len(CUTS))))
FLAT = DimRow("flat:0", 32, 32, losses=(1.0,) * len(CUTS))
REPORT = Report(
    command="inspect",
    input="in.onnx",
    before=Cost(1),
    dims=(STEEP, DimRow("frozen:0", 3, 3, reason="x"), FLAT),
)


def test_the_plot_rises_where_more_is_lost() -> None:
    plot = sensitivity_plot(REPORT, verbose=False)
    assert plot is not None
    scale, steep, flat = plot.plain.splitlines()
    assert steep == "steep:0  ▁▁▁▁▁▁▁▁▁▁▁▃▅▆█"
    assert flat == "flat:0   " + "█" * len(CUTS)
    assert "0.0001 or less" in scale


def test_the_table_has_the_losses_at_eighths() -> None:
    stream = io.StringIO()
    render(REPORT, stream)
    rows = [line.split() for line in stream.getvalue().splitlines()]
    expected = ["1e-13", "1e-11", "1e-09", "1e-07", "1e-05", "0.001", "0.1"]
    assert ["steep:0", *expected] in rows
    assert sum(row[:1] == ["frozen:0"] for row in rows) == 1  # among the Dims


def test_many_dims_are_shown_with_verbose_only() -> None:
    many = replace(REPORT, dims=(STEEP,) * 30)
    few, all_ = sensitivity_table(many, verbose=False), sensitivity_table(many, verbose=True)
    assert few is not None
    assert all_ is not None
    assert (few.row_count, all_.row_count) == (21, 30)


def test_without_data_there_is_neither() -> None:
    bare = replace(REPORT, dims=(DimRow("a", 3, 3),))
    assert sensitivity_table(bare, verbose=False) is None
    assert sensitivity_plot(bare, verbose=False) is None
