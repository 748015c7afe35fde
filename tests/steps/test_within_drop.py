"""The smallest model within an allowed drop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

import onnxprune
from onnxprune.dims import Tracing
from onnxprune.errors import NothingToPruneError
from onnxprune.plan import second_order
from tests.models import DIGITS

RESNET, CALIBRATION = DIGITS / "digits_resnet.onnx", DIGITS / "digits_calib.npz"


def prune(out: Path, **options: object) -> onnxprune.Report:
    return onnxprune.prune(RESNET, out, data=CALIBRATION, check_latency=False, **options)


def test_the_smallest_model_that_holds_is_written(tmp_path: Path) -> None:
    report = prune(tmp_path / "o.onnx", target="drop=0.05")
    held = [row for row in report.steps if row.held]
    failed = [row for row in report.steps if not row.held]
    assert len(held) > 1
    assert all(row.bound <= 0.05 for row in held)
    assert all(row.bound > 0.05 for row in failed)
    smallest = min(held, key=lambda row: row.asked)
    assert all(row.asked < smallest.asked for row in failed)
    assert report.after is not None
    assert report.after.macs == smallest.macs
    assert smallest.macs < 0.7 * report.steps[0].macs
    assert {row.samples for row in report.steps} == {100}


def test_weights_are_zeroed_as_far_as_holds(tmp_path: Path) -> None:
    report = prune(tmp_path / "o.onnx", target="drop=0.05", granularity="weight")
    kept = min((row for row in report.steps if row.held), key=lambda row: row.asked)
    assert report.after is not None
    assert report.after.zeros == kept.zeros
    assert kept.zeros > 0.2 * kept.params


def test_what_nothing_reaches_is_refused_and_how_close_it_came_is_said(tmp_path: Path) -> None:
    with pytest.raises(NothingToPruneError, match=r"out of reach: with 0.\d+ of the MACs left"):
        prune(
            tmp_path / "o.onnx",
            target="drop=0.001",
            criterion="random",
            recover="none",
            round_to=16,
        )
    assert list(tmp_path.iterdir()) == []


def test_no_model_is_calibrated_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[ir.Model] = []
    measured: list[int] = []
    gather, feel = second_order.second_order, second_order.sensitivities

    def counted(tracing: Tracing, *arguments: Any) -> Any:
        calls.append(tracing.model)
        return gather(tracing, *arguments)

    def felt(*arguments: Any) -> Any:
        measured.append(1)
        return feel(*arguments)

    monkeypatch.setattr(second_order, "second_order", counted)
    monkeypatch.setattr(second_order, "sensitivities", felt)
    report = prune(tmp_path / "o.onnx", target="drop=0.05")
    assert len(report.steps) > 3
    assert len({id(model) for model in calls}) == len(calls) > 1
    assert len(measured) == 1  # of the original, for all models cut from it
