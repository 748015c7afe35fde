"""Real models of many exporters, where the folder beside the repository has them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

import onnxprune
from onnxprune.errors import ModelError, NothingToPruneError
from tests.models import DIGITS

ZOO = DIGITS.parent.parent / "shared" / "zoo"
FEW = {
    "mnist_cntk": 0.6,
    "residual_block": 0.8,
    "crnn_ocr_lstm": 0.5,
    "squeezenet": 0.5,
    "dnsmos_p808": 0.6,
    "yunet_n_dynamic": 0.7,
}
"""Models, with the largest share of their parameters that may be left at sparsity 0.5."""


def prune(name: str, tmp_path: Path) -> onnxprune.Report:
    return onnxprune.prune(
        ZOO / f"{name}.onnx",
        tmp_path / "out.onnx",
        criterion="magnitude",
        round_to=1,
        plan=tmp_path / "plan.json",
        check_latency=False,
        check_drift=False,
    )


@pytest.mark.skipif(not ZOO.is_dir(), reason="no zoo beside the repository")
@pytest.mark.parametrize("name", FEW)
def test_a_few_are_cut_and_exact(name: str, tmp_path: Path) -> None:
    report = prune(name, tmp_path)
    assert report.passed
    assert report.after.params <= FEW[name] * report.before.params
    assert json.loads((tmp_path / "plan.json").read_text())["removed"]


@pytest.mark.slow
@pytest.mark.skipif(not ZOO.is_dir(), reason="no zoo beside the repository")
def test_every_model_is_cut_or_refused_with_a_reason(tmp_path: Path) -> None:
    shares, refused = {}, {}
    for name in sorted(path.stem for path in ZOO.glob("*.onnx")):
        try:
            report = prune(name, tmp_path)
        except (NothingToPruneError, ModelError) as error:
            refused[name] = str(error)
            continue
        assert report.passed, name
        shares[name] = report.after.params / report.before.params
        os.remove(tmp_path / "out.onnx")
    assert sorted(shares.values())[len(shares) // 2] <= 0.35
    assert len(shares) >= 45, refused
