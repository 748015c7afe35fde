"""Training as part of pruning, and from file to file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import DataError, OptionError, ValidationError
from onnxprune.graph import load, save, weights
from onnxprune.runtime.data import read_data
from onnxprune.runtime.sessions import session
from onnxprune.validation.accuracy import accuracy
from tests.train.steps import DIGITS

MODEL, CALIBRATION, TEST = (
    DIGITS / name for name in ("digits_resnet.onnx", "digits_calib.npz", "digits.npz")
)
QUICK = {"check_drift": False, "check_latency": False}

LSTM = DIGITS / "digits_lstm.onnx"


def top1(path: Path) -> float:
    return accuracy(session(path, threads=1), read_data(TEST, load(path))).value


def prune(path: Path, model: Path = MODEL, **options: object) -> onnxprune.Report:
    return onnxprune.prune(model, path, data=CALIBRATION, round_to=1, **QUICK, **options)


def test_training_recovers_more_than_closed_forms(tmp_path: Path) -> None:
    found = {}
    for name in ("none", "lstsq", "finetune"):
        train = {"train": {"epochs": 8, "lr": 5e-3}} if name == "finetune" else {}
        options = {"sparsity": 0.6, "criterion": "magnitude", "recover": name, **train}
        report = prune(tmp_path / "out.onnx", LSTM, **options)
        found[name] = top1(tmp_path / "out.onnx")
    assert found["none"] < 0.6
    assert found["finetune"] > found["lstsq"] + 0.02
    (check,) = [check for check in report.checks if check.name == "training"]
    assert len(check.values["epochs"]) == 8
    assert report.passed


def test_statistics_alone_bring_back_some(tmp_path: Path) -> None:
    for name in ("none", "bn"):
        options = {"sparsity": 0.5, "criterion": "magnitude", "recover": name}
        prune(tmp_path / f"{name}.onnx", **options)
    assert top1(tmp_path / "bn.onnx") > top1(tmp_path / "none.onnx") + 0.2


def test_zeros_of_n_m_survive_training(tmp_path: Path) -> None:
    path = tmp_path / "nm.onnx"
    prune(path, granularity="2:4", recover="finetune", train={"epochs": 2})
    before = {weight.name: weight.array() for weight in weights(load(MODEL))}
    found = [w for w in weights(load(path)) if len(w.shape) == 4 and w.shape[1] % 4 == 0]
    assert len(found) > 8
    for weight in found:
        array = weight.array()
        groups = np.moveaxis(array, 1, -1).reshape(-1, 4)
        assert ((groups != 0).sum(1) <= 2).all()
        assert (array[array != 0] != before[weight.name][array != 0]).mean() > 0.9


def test_the_verb_trains_a_file_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out, report = LSTM, tmp_path / "out.onnx", tmp_path / "r.json"
    before = model.read_bytes()
    options = ["--epochs", "1", "--lr", "1e-3", "--clip-norm", "0", "--report", str(report)]
    files = [str(model), str(out), "--data", str(CALIBRATION), "--teacher", str(model)]
    assert main(["finetune", *files, "--eval-data", str(CALIBRATION), *options]) == 0
    assert model.read_bytes() == before
    shown = capsys.readouterr().out
    assert "1 epochs, adamw, learning rate 0.001" in shown
    assert "accuracy" in shown
    told = json.loads(report.read_text())
    assert told["command"] == "finetune"
    assert told["options"]["clip_norm"] is None
    assert [value.name for value in load(out).graph.outputs] == ["logits"]


def test_what_diverges_at_once_is_not_written(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    with pytest.raises(ValidationError, match="diverged in epoch 1"):
        onnxprune.finetune(LSTM, out, CALIBRATION, lr=1e6, optimizer="sgd")
    assert not out.exists()


def test_pruning_keeps_what_it_had_where_training_diverges(tmp_path: Path) -> None:
    options = {"sparsity": 0.3, "recover": "finetune", "train": {"lr": 1e6, "optimizer": "sgd"}}
    report = prune(tmp_path / "out.onnx", LSTM, **options)
    assert any("diverged in epoch 1" in note for note in report.notes)
    assert all(np.isfinite(w.array()).all() for w in weights(load(tmp_path / "out.onnx")))
    assert top1(tmp_path / "out.onnx") > 0.5


def test_wrong_usage_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.onnx"
    images = np.load(CALIBRATION)["image"]
    np.savez(tmp_path / "unlabelled.npz", image=images)
    with pytest.raises(DataError, match="--teacher"):
        onnxprune.finetune(MODEL, out, tmp_path / "unlabelled.npz")
    with pytest.raises(OptionError, match="overwrite the input"):
        onnxprune.finetune(MODEL, MODEL, CALIBRATION)
    with pytest.raises(OptionError, match="'epoch'"):
        onnxprune.finetune(MODEL, out, CALIBRATION, epoch=3)
    with pytest.raises(OptionError, match="--recover finetune"):
        prune(out, recover="lstsq", train={"epochs": 3})
    with pytest.raises(DataError, match="no pair"):
        onnxprune.finetune(MODEL, out, CALIBRATION, _other(tmp_path))
    assert main(["finetune", str(MODEL), str(out), "--data", str(CALIBRATION), "--lr", "-1"]) == 2
    assert "lr must be" in capsys.readouterr().err
    assert not out.exists()


def _other(folder: Path) -> Path:
    """The model with an output of another name."""
    model = load(MODEL)
    model.graph.outputs[0].name = "scores"
    onnx_file = folder / "other.onnx"
    save(model, onnx_file)
    return onnx_file
