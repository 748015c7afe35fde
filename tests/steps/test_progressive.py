"""Pruning in steps, on a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.cli import main
from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import load, save, weights
from onnxprune.options import PruneOptions
from onnxprune.progress import Silent
from onnxprune.report.timing import Clock
from onnxprune.runtime.data import read_data
from onnxprune.runtime.sessions import session
from onnxprune.steps import progressive
from onnxprune.steps.progressive import shares
from onnxprune.validation.accuracy import accuracy
from tests.dims.exact import build, constants, difference, masked
from tests.dims.exact import session as plain_session
from tests.models import DIGITS, random

RESNET, LSTM = DIGITS / "digits_resnet.onnx", DIGITS / "digits_lstm.onnx"
CALIBRATION, TEST = DIGITS / "digits_calib.npz", DIGITS / "digits.npz"


def prune(path: Path, model: Path = RESNET, **options: object) -> onnxprune.Report:
    common = {"data": CALIBRATION, "round_to": 1, "check_latency": False}
    return onnxprune.prune(model, path, **{**common, **options})


def top1(path: Path) -> float:
    return accuracy(session(path, threads=1), read_data(TEST, load(path))).value


@pytest.mark.parametrize("model", [RESNET, LSTM], ids=["resnet", "lstm"])
def test_steps_cut_what_the_plan_says(model: Path, tmp_path: Path) -> None:
    """Without repair the result is the original with the plan's indices gone, weight by weight."""
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    report = prune(
        out, model, plan=plan, steps=3, sparsity=0.5, criterion="magnitude", recover="none"
    )
    removed = json.loads(plan.read_text())["removed"]
    original, pruned = onnx.load(model), onnx.load(out)
    onnx.checker.check_model(pruned, full_check=True)
    kept, known = constants(pruned), constants(original)
    assert removed
    for tensor, axes in removed.items():
        array = numpy_helper.to_array(known[tensor])
        for axis, gone in axes.items():
            array = np.delete(array, gone, int(axis))
        assert np.array_equal(numpy_helper.to_array(kept[tensor]), array)
    images = np.load(TEST)["image"][:50]
    (a,), (b,) = (
        made.run(None, {"image": images})
        for made in (plain_session(masked(original, removed)), plain_session(pruned))
    )
    assert difference(a, b) < 1e-4
    assert report.passed
    assert not (tmp_path / "out.onnx.checkpoint").exists()


def test_each_step_goes_as_far_as_the_schedule_says(tmp_path: Path) -> None:
    report = prune(tmp_path / "o.onnx", target="macs=0.5", steps=4, schedule="linear")
    assert [row.number for row in report.steps] == [0, 1, 2, 3, 4]
    whole = report.steps[0].macs
    assert whole is not None
    for row, asked in zip(report.steps, (1, 0.875, 0.75, 0.625, 0.5), strict=True):
        assert row.macs is not None
        assert row.asked == pytest.approx(asked)
        assert asked - 0.05 < row.macs / whole <= asked
    assert report.after is not None
    assert report.after.macs == report.steps[-1].macs
    assert top1(tmp_path / "o.onnx") > 0.97


def test_a_repair_at_every_step_keeps_most_of_the_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # with all trials that users get
    out = tmp_path / "o.onnx"
    prune(out, target="macs=0.08", steps=4)
    assert top1(out) > 0.9
    prune(out, target="macs=0.08", steps=4, criterion="magnitude", recover="none")
    assert top1(out) < 0.5


def test_rewinding_gives_surviving_weights_their_old_values(tmp_path: Path) -> None:
    """Repaired only where the cut reaches: a step's own repair, not those of the steps before."""
    at_once = {}
    for rewind in ("none", "weights"):
        plan = tmp_path / f"{rewind}.json"
        options = {"rewind": rewind, "criterion": "magnitude", "recover": "bn"}
        prune(tmp_path / f"{rewind}.onnx", steps=2, plan=plan, **options)
        at_once[rewind] = json.loads(plan.read_text())["removed"]
    original = {w.name: w.array() for w in weights(load(RESNET))}
    rewound = {w.name: w.array() for w in weights(load(tmp_path / "weights.onnx"))}
    for name, axes in at_once["weights"].items():
        if name.endswith("conv1.weight"):
            array = original[name]
            for axis, gone in axes.items():
                array = np.delete(array, gone, int(axis))
            assert np.array_equal(rewound[name], array)


@pytest.mark.parametrize("granularity", ["weight", "block:4x2"])
def test_zeros_grow_step_by_step(granularity: str, tmp_path: Path) -> None:
    out, plan = tmp_path / "o.onnx", tmp_path / "p.json"
    train = {"epochs": 3}
    report = prune(
        out,
        granularity=granularity,
        sparsity=0.4,
        steps=3,
        recover="finetune",
        train=train,
        plan=plan,
    )
    zeros = [row.zeros for row in report.steps]
    assert zeros == sorted(zeros)
    before, after = ({w.name: w.array() for w in weights(load(path))} for path in (RESNET, out))
    masks = onnxprune.plan.weight_plan.WeightPlan.load(plan)
    assert masks.count == zeros[-1]
    total = sum(mask.size for mask in masks.zeroed.values())
    assert masks.count / total == pytest.approx(0.4, abs=0.05)
    for name, mask in masks.zeroed.items():
        assert not after[name][mask.array()].any()
        assert (after[name] != before[name]).any()
    last = report.steps[-1]
    assert last.recovered > 0.7


def test_the_steps_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, report = tmp_path / "o.onnx", tmp_path / "r.json"
    arguments = ["--target", "macs=0.4", "--steps", "2", "--schedule", "linear", "--no-latency"]
    files = [str(RESNET), str(out), "--data", str(CALIBRATION), "--report", str(report)]
    assert main([*files, *arguments]) == 0
    shown = capsys.readouterr().out
    assert "o cut, * repaired" in shown
    assert "40 of the samples were held aside" in shown
    rows = json.loads(report.read_text())["steps"]
    assert [row["samples"] for row in rows] == [40, 40, 40]
    assert rows[0]["cut"] is None
    assert all(row["cut"] <= row["recovered"] for row in rows[1:])


def test_what_does_not_hold_is_taken_back_and_half_as_far_is_tried(tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    report = prune(out, target="drop=0.03", steps=6, schedule="exponential")
    first = next(k for k, row in enumerate(report.steps) if not row.held)
    assert 1 < first < 6
    held, failed, then = report.steps[first - 1], report.steps[first], report.steps[first + 1]
    assert then.asked == pytest.approx((held.asked + failed.asked) / 2)
    kept = min((row for row in report.steps if row.held), key=lambda row: row.asked)
    assert report.after is not None
    assert report.after.macs == kept.macs
    assert kept.bound <= 0.03 < failed.bound
    assert len(report.steps) == 7
    assert top1(RESNET) - top1(out) < 0.05  # of samples that were not asked


def test_what_no_step_reaches_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    options = {"criterion": "random", "recover": "none"}
    with pytest.raises(
        NothingToPruneError, match=r"with 0.100 of the MACs left top-1 goes from 1.0000 to"
    ):
        prune(out, target="drop=0.01", steps=1, **options)
    assert list(tmp_path.iterdir()) == []


def test_the_loop_alone(tmp_path: Path) -> None:
    """From Python, with a model in memory, nothing kept on disk: the same model as the program writes."""
    options = PruneOptions.of(
        data=CALIBRATION, steps=2, sparsity=0.5, round_to=1, criterion="magnitude", recover="bn"
    )
    model = load(RESNET)
    done = progressive(model, read_data(CALIBRATION, model), options, Silent(), Clock())
    assert [row.number for row in done.steps] == [0, 1, 2]
    assert done.aside is not None
    assert len(done.aside) == 40
    save(done.pruned, tmp_path / "alone.onnx")
    prune(tmp_path / "program.onnx", steps=2, sparsity=0.5, criterion="magnitude", recover="bn")
    assert (tmp_path / "alone.onnx").read_bytes() == (tmp_path / "program.onnx").read_bytes()


def test_epochs_are_divided() -> None:
    assert shares(8, 4, searches=False) == (0, 0, 0, 8)
    assert shares(10, 4, searches=False) == (0, 1, 1, 8)
    assert shares(40, 4, searches=False) == (3, 3, 4, 30)
    assert shares(5, 1, searches=False) == (5,)
    assert shares(10, 4, searches=True) == (2, 3, 2, 3)
    assert sum(shares(17, 5, searches=False)) == sum(shares(17, 5, searches=True)) == 17


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"steps": 2, "data": None}, "--data"),
        ({"steps": 2, "granularity": "2:4"}, "one step only"),
        ({"steps": 2, "granularity": "weight", "threshold": 0.1}, "threshold"),
        ({"steps": 2, "schedule": "sigmoid"}, "schedule"),
        ({"rewind": "weights"}, "--steps"),
        ({"target": "drop=0.01", "data": None}, "--data"),
    ],
)
def test_what_makes_no_sense_is_refused(
    options: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=said):
        prune(tmp_path / "o.onnx", **options)


def test_channels_that_do_nothing_go_first(tmp_path: Path) -> None:
    """A hidden unit that is always 2: its share goes into the bias behind it, in steps too, and rewound."""
    w1, b1 = random(6, 12), random(12, seed=1)
    w1[:, [4, 9]], b1[[4, 9]] = 0.0, (2.0, -1.0)
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = Gemm(x, w1, b1) r = Relu(a) y = Gemm(r, w2, b2)
        }""",
        w1=w1,
        b1=b1,
        w2=random(12, 5, seed=2),
        b2=random(5, seed=3),
    )
    source, plan = tmp_path / "in.onnx", tmp_path / "plan.json"
    onnx.save(model, source)
    np.savez(tmp_path / "d.npz", x=random(80, 6, seed=4))
    for rewind in ("none", "weights"):
        out = tmp_path / f"{rewind}.onnx"
        options = {"data": tmp_path / "d.npz", "plan": plan, "rewind": rewind}
        prune(out, source, steps=2, target="params=0.8", **options)
        told = json.loads(plan.read_text())
        assert set(told["dead"]["w1"]["1"]) == {4, 9}
        assert {4, 9} < set(told["removed"]["w1"]["1"])
        assert constants(onnx.load(out))["w1"].dims[1] == 12 - len(told["removed"]["w1"]["1"])
