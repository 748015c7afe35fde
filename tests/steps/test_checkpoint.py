"""A run that was killed goes on where it was, and ends with the same bytes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.errors import NothingToPruneError, OnnxPruneError
from onnxprune.steps import recovery
from tests.models import DIGITS

RESNET, CALIBRATION = DIGITS / "digits_resnet.onnx", DIGITS / "digits_calib.npz"
OPTIONS = {
    "criterion": "magnitude",
    "recover": "bn",
    "sparsity": 0.6,
    "steps": 4,
    "round_to": 1,
    "check_latency": False,
    "check_drift": False,
}
COMMAND = (
    *("--criterion", "magnitude", "--recover", "finetune", "--epochs", "6"),
    *("--steps", "4", "--no-latency", "--quiet"),
)


def prune(out: Path, **options: Any) -> onnxprune.Report:
    return onnxprune.prune(RESNET, out, **{**OPTIONS, "data": CALIBRATION, **options})


@pytest.fixture
def stopped(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the steps done; the one after that many interrupts."""
    done: list[int] = []
    whole = recovery.Worker.step

    def step(worker: recovery.Worker, stage: Any, number: int, *rest: Any) -> Any:
        if done.count(-1) == 0 and number == 3:
            done.append(-1)
            raise KeyboardInterrupt
        done.append(number)
        return whole(worker, stage, number, *rest)

    monkeypatch.setattr(recovery.Worker, "step", step)
    return done


def test_steps_done_are_not_done_again(tmp_path: Path, stopped: list[int]) -> None:
    out, folder = tmp_path / "out.onnx", tmp_path / "out.onnx.checkpoint"
    with pytest.raises(KeyboardInterrupt):
        prune(out)
    assert not out.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "step-2.onnx"]
    report = prune(out)
    assert stopped == [1, 2, -1, 3, 4]
    assert [row.number for row in report.steps] == [0, 1, 2, 3, 4]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx"]
    again = tmp_path / "again.onnx"
    prune(again)
    assert again.read_bytes() == out.read_bytes()


def test_steps_taken_back_are_remembered(tmp_path: Path, stopped: list[int]) -> None:
    out, again = tmp_path / "out.onnx", tmp_path / "again.onnx"
    options = {"sparsity": None, "target": "drop=0.3"}
    with pytest.raises(KeyboardInterrupt):
        prune(out, **options)
    report = prune(out, **options)
    assert stopped == [1, 2, -1, 3, 4]
    assert not all(row.held for row in report.steps[:3])
    whole = prune(again, **options)
    assert [row.held for row in whole.steps] == [row.held for row in report.steps]
    assert again.read_bytes() == out.read_bytes()


def test_data_count_by_what_is_in_them(tmp_path: Path, stopped: list[int]) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(KeyboardInterrupt):
        prune(out)
    arrays = dict(np.load(CALIBRATION))
    np.savez(tmp_path / "moved.npz", **arrays)
    arrays["image"][0, 0, 0, 0] += 1
    np.savez(tmp_path / "other.npz", **arrays)
    for other in ({"data": tmp_path / "other.npz"}, {"sparsity": 0.5}, {"seed": 1}):
        with pytest.raises(OnnxPruneError, match="checkpoint of another run"):
            prune(out, **other)
    prune(out, data=tmp_path / "moved.npz", report=tmp_path / "r.json")
    assert stopped == [1, 2, -1, 3, 4]


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "letter.txt").write_text("dear")
    with pytest.raises(OnnxPruneError, match="no checkpoint of this program"):
        prune(tmp_path / "out.onnx", checkpoint=folder)
    assert [path.name for path in folder.iterdir()] == ["letter.txt"]


def test_what_a_run_killed_in_its_first_step_leaves_is_no_obstacle(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    (folder / ".step-1.onnx.12ab34cd.tmp").write_bytes(b"half")
    (folder / "step-1.onnx").write_bytes(b"whole, but no state names it")
    prune(tmp_path / "out.onnx", checkpoint=folder)
    assert [path.name for path in tmp_path.iterdir()] == ["out.onnx"]


def test_a_failure_that_would_come_again_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(NothingToPruneError, match="after rounding"):
        prune(tmp_path / "out.onnx", sparsity=1e-4)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_keeps_nothing(tmp_path: Path) -> None:
    report = prune(tmp_path / "out.onnx", dry_run=True, plan=tmp_path / "plan.json")
    assert len(report.steps) == 5
    assert json.loads((tmp_path / "plan.json").read_text())["removed"]
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "onnxprune", str(RESNET), str(out), "--data", str(CALIBRATION)]
    root = str(Path(onnxprune.__file__).resolve().parents[1])
    return subprocess.Popen([*command, *COMMAND], env={**os.environ, "PYTHONPATH": root})


def killed(out: Path, seconds: float) -> bool:
    """Runs the program and kills it after so many seconds; whether it had not come to its end."""
    process = start(out)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


@pytest.mark.parametrize(
    "moments", [2, pytest.param(20, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_any_moment(tmp_path: Path, moments: int) -> None:
    """OUT is whole or absent, IN as it was, and whatever was killed before, the end is the same."""
    before = RESNET.read_bytes()
    reference, out = tmp_path / "reference.onnx", tmp_path / "out.onnx"
    assert start(reference).wait() == 0
    random = np.random.default_rng(moments)
    for _ in range(moments):
        seconds = float(random.uniform(0.3, 4.0))
        while killed(out, seconds) and seconds < 60:  # again and again, each time a little later
            assert RESNET.read_bytes() == before
            assert not out.exists() or out.read_bytes() == reference.read_bytes()
            seconds *= 1.5
        assert out.read_bytes() == reference.read_bytes()
        assert not (tmp_path / "out.onnx.checkpoint").exists()
        assert RESNET.read_bytes() == before
        out.unlink()
