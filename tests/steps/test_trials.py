"""A target in stages: reached, better than at once, and one cut of the original in the end."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.plan.second_order import Pricing
from onnxprune.steps.trials import MOST_STAGES, MOST_TILTS, TRUSTS, pricings, route
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


def test_where_a_trial_takes_little_more_are_made() -> None:
    assert len(pricings(1e15)) == len(TRUSTS)
    few = pricings(1.0)
    assert len(set(few)) == len(TRUSTS) + MOST_TILTS
    assert few[: len(TRUSTS)] == pricings(1e15)
    assert Pricing() in few


def test_a_latency_is_tried_by_macs_too() -> None:
    found = pricings(1e15, "latency")
    assert {each.saves for each in found} == {None, "macs"}
    assert len(found) <= len(TRUSTS)


def test_the_stages_together_are_the_plans_cut(tmp_path: Path) -> None:
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
    staged = [note for note in report.notes if note.startswith("in stages")]
    assert len(staged) == len(route(1.0, 0.5))
    removed = json.loads(plan.read_text())["removed"]
    before = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(RESNET).graph.initializer}
    after = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(out).graph.initializer}
    for name, axes in removed.items():
        expected = [n - len(axes.get(str(k), ())) for k, n in enumerate(before[name])]
        assert list(after[name]) == expected


def test_few_samples_do_for_both(tmp_path: Path) -> None:
    data = np.load(DIGITS / "digits_calib.npz")
    few = tmp_path / "few.npz"
    np.savez(few, image=data["image"][:4])
    report = onnxprune.prune(
        RESNET, tmp_path / "out.onnx", data=few, target="macs=0.8", check_latency=False
    )
    assert report.after is not None
    assert report.after.macs <= 0.8 * report.before.macs
