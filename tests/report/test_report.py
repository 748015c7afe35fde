from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune.errors import OnnxPruneError
from onnxprune.report import (
    Check,
    Cost,
    DimRow,
    Report,
    TensorRow,
    render,
    write_json,
    write_report,
)
from onnxprune.report.columns import count

PRUNED = Report(
    command="prune",
    input="in.onnx",
    output="out.onnx",
    options={"granularity": "channel", "sparsity": 0.5, "criterion": "magnitude", "scope": "layer"},
    before=Cost(96_314, 397_797, 1_234_000),
    after=Cost(24_000, 100_000, 400_000),
    dims=(
        DimRow("blocks.0.conv1", 16, 8, 5000, 200_000, tensors=("a", "b")),
        DimRow("kept whole", 16, 16, 10, 10),
    ),
    frozen={"feeds graph output `logits`": 10, "Softmax over it": 3},
    checks=(
        Check("cut equals mask", True, "relative error 3e-7", {"error": 3e-7}),
        Check("latency", None, "0.61 of before", {"ratio": np.float32(0.5), "p90": float("nan")}),
    ),
    timings={"load": 0.01},
    notes=("something to know",),
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def text(report: Report, *, verbose: bool = False) -> str:
    stream = io.StringIO()
    render(report, stream, verbose=verbose)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (None, "-"),
        (0, "0"),
        (987, "987"),
        (96_314, "96.3 K"),
        (25_557_032, "25.6 M"),
        (4.1e9, "4.1 G"),
    ],
)
def test_numbers_are_written_as_people_read_them(number: int | None, expected: str) -> None:
    assert count(number) == expected


def test_a_pruning_report_says_what_was_gained_and_what_was_checked() -> None:
    lines = text(PRUNED).splitlines()
    assert lines[0] == "in.onnx -> out.onnx  (channel, sparsity 0.5, magnitude, scope layer)"
    (params,) = [line.split() for line in lines if line.startswith("parameters")]
    assert params == ["parameters", "96.3", "K", "24", "K", "24.9%"]
    assert any(line.split()[:3] == ["blocks.0.conv1", "16", "8"] for line in lines)
    assert not any("kept whole" in line for line in lines)
    assert any("Softmax over it" in line and "3 indices" in line for line in lines)
    assert any("cut equals mask" in line and "ok" in line and "3e-7" in line for line in lines)
    assert lines[-1] == "note: something to know"


def test_in_a_pipe_there_is_no_colour_and_in_a_terminal_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in text(PRUNED)
    terminal = Terminal()
    render(PRUNED, terminal)
    assert "\x1b[" in terminal.getvalue()


def test_names_are_printed_as_they_are() -> None:
    odd = "[bold]/model/layer:0 [red] :smile: " + "x" * 200
    report = Report(command="prune", input=odd, tensors=(TensorRow(odd, (3, 4), 6),), notes=(odd,))
    written = text(report)
    assert written.count("[bold]/model/layer:0 [red] :smile:") >= 3 - 1
    assert f"note: {odd}" in written
    assert "50.0%" in written


def test_inspect_shows_every_dim_with_its_reason() -> None:
    dims = (
        DimRow("free", 16, 16, 100, 200),
        DimRow("bound", 10, 10, 30, None, reason="feeds graph output `y`"),
        DimRow("normed", 48, 48, 30, 7, inexact=True),
    )
    report = Report(command="inspect", input="m.onnx", before=Cost(1, 2), dims=dims)
    written = text(report)
    assert "frozen: feeds graph output `y`" in written
    assert any(
        line.split()[0] == "normed" and "inexact" in line
        for line in written.splitlines()
        if line.strip()
    )


def test_long_tables_are_cut_and_verbose_ones_are_not() -> None:
    rows = tuple(TensorRow(f"tensor{i}", (4,), 2) for i in range(50))
    report = Report(command="prune", input="m.onnx", tensors=rows)
    assert "... 30 more tensors" in text(report)
    assert "tensor49" not in text(report)
    assert "tensor49" in text(report, verbose=True)
    assert "more tensors" not in text(report, verbose=True)


def test_weights_left_alone_are_counted_by_reason() -> None:
    skipped = {"a": "excluded", "b": "excluded", "c": "it holds integers without a scale"}
    lines = text(Report(command="prune", input="m.onnx", skipped=skipped)).splitlines()
    assert any("excluded" in line and "2 weights" in line for line in lines)


def test_json_has_everything_and_only_finite_numbers(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(PRUNED.to_dict(), path)
    data = json.loads(path.read_text())
    assert data["format"] == "onnxprune-report/1"
    assert data["after"] == {"params": 24_000, "bytes": 100_000, "macs": 400_000, "zeros": None}
    assert data["dims"][0]["tensors"] == ["a", "b"]
    assert data["checks"][1]["values"] == {"ratio": 0.5, "p90": None}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_a_failed_check_fails_the_report() -> None:
    assert PRUNED.passed
    assert not Report(command="validate", input="a", checks=(Check("x", False, ""),)).passed


def test_what_cannot_be_written_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OnnxPruneError, match="cannot write"):
        write_json({}, tmp_path / "missing" / "report.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OnnxPruneError, match="cannot write"):
        write_json({}, tmp_path / "folder.json")
    assert [p.name for p in tmp_path.iterdir()] == ["folder.json"]


def test_a_page_holds_the_whole_report(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(PRUNED, path)
    written = path.read_text(encoding="utf-8")
    assert written.count("<title>in.onnx -&gt; out.onnx  (channel, sparsity 0.5") == 1
    for part in ("blocks.0.conv1", "Softmax over it", "relative error 3e-7", "something to know"):
        assert part in written
    assert "\x1b" not in written
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def test_names_in_a_page_are_no_markup(tmp_path: Path) -> None:
    odd = Report(command="inspect", input="<b>{x}", dims=(DimRow("<i>[red]{y}", 4, 4),))
    write_report(odd, tmp_path / "report.html")
    written = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;{x}" in written
    assert "&lt;i&gt;[red]{y}" in written
    assert "<b>" not in written
