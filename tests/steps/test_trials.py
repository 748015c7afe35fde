"""A target in stages: reached, better than at once, and one cut of the original in the end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.options import PruneOptions
from onnxprune.plan.recipe import Recipe
from onnxprune.steps import candidates
from onnxprune.steps.candidates import (
    CHEAP,
    EFFORT,
    MOST_TILTS,
    MOVES,
    REFITTED,
    TRUSTS,
    recipes,
    repairs,
)
from onnxprune.steps.lines import Channels
from onnxprune.steps.trials import MOST_STAGES, route
from tests.dims.exact import build
from tests.models import DIGITS

RESNET = DIGITS / "digits_resnet.onnx"


def test_stages_leave_equal_shares_of_the_one_before() -> None:
    assert route(1.0, 0.95) == (0.95,)
    assert len(route(1.0, 0.1)) == MOST_STAGES
    for target in (0.7, 0.5, 0.1):
        found = route(1.0, target)
        ratios = np.array(found) / np.array([1.0, *found[:-1]])
        assert found[-1] == pytest.approx(target)
        np.testing.assert_allclose(ratios, ratios[0])


def asked(target: str = "macs=0.5", **more: Any) -> PruneOptions:
    return PruneOptions.of(data="calib.npz", target=target, **more)


def test_where_a_trial_takes_little_more_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "EFFORT", EFFORT)
    monkeypatch.setattr(candidates, "CHEAP", CHEAP)
    few, many = recipes(asked(), 1e15), recipes(asked(), 1.0)
    assert len(few) == len(TRUSTS) + 2
    assert len(set(many)) == len(few) + MOST_TILTS + 1
    assert set(few) <= set(many)
    assert Recipe() in few
    assert {each.moves for each in repairs(asked(), MOVES[0])} == {(), MOVES[0]}
    assert not any(each.copies for each in repairs(asked(), ()))


def test_what_is_named_is_not_tried_otherwise() -> None:
    assert {each.criterion for each in recipes(asked(criterion="obs"), 1.0)} == {"obs"}
    assert {each.scope for each in recipes(asked(scope="layer"), 1.0)} == {"layer"}
    assert {each.method for each in repairs(asked(recover="lstsq"), MOVES[0])} == {"lstsq"}
    assert {each.method for each in repairs(asked(), MOVES[0])} == {"lstsq", "bias"}


def test_a_latency_is_tried_by_macs_too() -> None:
    found = recipes(asked("latency=0.5"), 1e15)
    assert {each.pricing.saves for each in found} == {None, "macs"}
    assert len(found) <= len(TRUSTS)


def test_the_stages_together_are_the_plans_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxprune.steps.trials.CHEAP", CHEAP)
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    report = onnxprune.prune(
        RESNET,
        out,
        plan=plan,
        data=DIGITS / "digits_calib.npz",
        target="macs=0.5",
        check_latency=False,
    )
    assert report.after is not None
    assert 0.45 < report.after.macs / report.before.macs <= 0.5
    taken = [row for row in report.trials if row.taken and " of " in row.route]
    assert [row.left for row in taken] == pytest.approx(route(1.0, 0.5))
    for row in taken:
        stage = [each for each in report.trials if each.route == row.route]
        refitted = [each.error for each in stage if each.repair == "lstsq"]
        assert len(refitted) == REFITTED < len(stage)
        assert row.error == min(refitted)
    repaired = {row.repair for row in report.trials if row.route == "repair"}
    assert repaired == {"bias", "lstsq, 4 copies by crop"}  # a mirrored digit is none
    removed = json.loads(plan.read_text())["removed"]
    before = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(RESNET).graph.initializer}
    after = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(out).graph.initializer}
    for name, axes in removed.items():
        expected = [n - len(axes.get(str(k), ())) for k, n in enumerate(before[name])]
        assert list(after[name]) == expected


DEPTHWISE = """(float[N,3,6,6] x) => (float[N,5,6,6] y) {
    a = Conv(x, w1)
    b = Relu(a)
    c = Conv<group=64, pads=[1, 1, 1, 1]>(b, w2)
    d = Relu(c)
    e = Conv(d, w3)
    f = Relu(e)
    g = Conv<group=96, pads=[1, 1, 1, 1]>(f, w4)
    y = Conv(g, w5)
}"""


@pytest.mark.parametrize("round_to", [None, 1])
def test_only_the_last_stage_rounds_to_what_the_originals_kernels_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, round_to: int | None
) -> None:
    monkeypatch.setattr("onnxprune.plan.rounding.channel_step", lambda: 16)
    source, samples = tmp_path / "in.onnx", tmp_path / "samples.npz"
    shapes = {"w1": (64, 3, 1, 1), "w2": (64, 1, 3, 3), "w3": (96, 64, 1, 1), "w4": (96, 1, 3, 3)}
    onnx.save(build(DEPTHWISE, **shapes, w5=(5, 96, 1, 1)), source)
    x = np.random.default_rng(0).standard_normal((64, 3, 6, 6), np.float32)
    np.savez(samples, x=x)
    stages = []
    cut = Channels.alternatives

    def seen(*args: Any, **more: Any) -> Any:
        found = cut(*args, **more)
        stages.append([[mask.sum() for mask in stage.gone.values()] for stage in found])
        return found

    monkeypatch.setattr(Channels, "alternatives", seen)
    onnxprune.prune(
        source,
        tmp_path / "out.onnx",
        data=samples,
        target="macs=0.5",
        round_to=round_to,
        check_latency=False,
    )
    *early, last = (np.concatenate(widths) for widths in stages[: len(route(1.0, 0.5))])
    assert any((widths % 16).any() for widths in early)
    assert bool((last % 16).any()) == (round_to == 1)


def test_of_few_samples_every_trial_is_judged_by_several_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = np.load(DIGITS / "digits_calib.npz")
    few = tmp_path / "few.npz"
    np.savez(few, image=data["image"][:40])
    errors = []
    for cheap in (0.0, CHEAP):
        monkeypatch.setattr("onnxprune.steps.trials.CHEAP", cheap)
        report = onnxprune.prune(
            RESNET,
            tmp_path / "out.onnx",
            data=few,
            target="macs=0.8",
            criterion="obs",
            recover="lstsq",
            check_latency=False,
        )
        errors.append([row.error for row in report.trials if row.repair == "lstsq"])
    assert len(errors[0]) == len(errors[1]) == REFITTED
    assert set(errors[0]).isdisjoint(errors[1])


def test_few_samples_do_for_both(tmp_path: Path) -> None:
    data = np.load(DIGITS / "digits_calib.npz")
    few = tmp_path / "few.npz"
    np.savez(few, image=data["image"][:4])
    report = onnxprune.prune(
        RESNET, tmp_path / "out.onnx", data=few, target="macs=0.8", check_latency=False
    )
    assert report.after is not None
    assert report.after.macs <= 0.8 * report.before.macs
