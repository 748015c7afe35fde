"""The whole program on the models of this repository, and on small ones made here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import NothingToPruneError, OnnxPruneError, OptionError, ValidationError
from onnxprune.graph import replace, weights
from onnxprune.steps import channels
from onnxprune.validation.equality import Equality
from tests.dims.exact import build, constants, difference, masked, session
from tests.e2e.conftest import Run
from tests.models import DIGITS

MODELS = ("digits_resnet", "digits_vit", "digits_lstm")
PLAIN = {"criterion": "magnitude", "recover": "none", "check_latency": False}


def opsets(model: onnx.ModelProto) -> dict[str, int]:
    return {opset.domain: opset.version for opset in model.opset_import}


def test_classes_may_be_strings(tmp_path: Path) -> None:
    """As scikit-learn's labels are."""
    model = build(
        """(float[N,6] x) => (string[N] label, float[N,3] scores) {
            a = MatMul(x, w1)
            r = Relu(a)
            scores = MatMul(r, w2)
            best = ArgMax<axis=1, keepdims=0>(scores)
            label = Gather(classes, best)
        }""",
        w1=(6, 16),
        w2=(16, 3),
        classes=np.array(["cat", "dog", "bird"], object),
    )
    onnx.save(model, tmp_path / "in.onnx")
    for options in (PLAIN, {"data": "synthetic", "check_latency": False, "target": "bytes=0.8"}):
        report = onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", **options)
        assert report.after.params < report.before.params


@pytest.mark.parametrize("name", MODELS)
def test_channels_of_trained_models(name: str, tmp_path: Path) -> None:
    source, out, plan = DIGITS / f"{name}.onnx", tmp_path / "out.onnx", tmp_path / "plan.json"
    before = source.read_bytes()
    report = onnxprune.prune(
        source, out, plan=plan, data=DIGITS / "digits.npz", round_to=1, **PLAIN
    )
    assert source.read_bytes() == before
    assert report.before is not None
    assert report.after is not None
    assert report.after.params < 0.5 * report.before.params
    assert report.after.macs < 0.5 * report.before.macs
    assert report.after.bytes == out.stat().st_size
    assert {check.name: check.passed for check in report.checks}["cutting equals masking"]
    original, pruned = onnx.load(source), onnx.load(out)
    onnx.checker.check_model(pruned, full_check=True)
    assert pruned.ir_version == original.ir_version
    assert opsets(pruned) == opsets(original)
    removed = json.loads(plan.read_text())["removed"]
    assert removed
    images = np.load(DIGITS / "digits.npz")["image"]
    reference, mine = session(masked(original, removed)), session(pruned)
    for batch in (images[:1], images[:50]):
        (a,), (b,) = (made.run(None, {"image": batch}) for made in (reference, mine))
        assert difference(a, b) < 1e-4
    kept, known = constants(pruned), constants(original)
    for tensor, axes in removed.items():
        array = numpy_helper.to_array(known[tensor])
        for axis, gone in axes.items():
            array = np.delete(array, gone, int(axis))
        assert np.array_equal(numpy_helper.to_array(kept[tensor]), array)


@pytest.mark.slow
def test_the_default_run_keeps_the_accuracy(tmp_path: Path) -> None:
    """With samples: scores and re-fitting, by default."""
    report = onnxprune.prune(
        DIGITS / "digits_resnet.onnx",
        tmp_path / "out.onnx",
        sparsity=0.25,
        data=DIGITS / "digits_calib.npz",
        check_latency=False,
    )
    accuracy = next(check for check in report.checks if check.name == "accuracy")
    assert accuracy.values["before"]["value"] > 0.99
    assert accuracy.values["after"]["value"] > 0.97


@pytest.mark.parametrize("granularity", ["weight", "2:4", "block:4x4"])
@pytest.mark.parametrize("name", MODELS)
def test_zeroing_weights_of_trained_models(name: str, granularity: str, tmp_path: Path) -> None:
    source, out, plan = DIGITS / f"{name}.onnx", tmp_path / "out.onnx", tmp_path / "plan.json"
    report = onnxprune.prune(
        source, out, granularity=granularity, plan=plan, data=DIGITS / "digits.npz", **PLAIN
    )
    before, after = constants(onnx.load(source)), constants(onnx.load(out))
    assert before.keys() == after.keys()
    zeros = total = 0
    for tensor, proto in before.items():
        a, b = numpy_helper.to_array(proto), numpy_helper.to_array(after[tensor])
        assert a.shape == b.shape
        assert np.array_equal(b[b != 0], a[b != 0])
        if a.ndim > 1 and a.size > 100 and a.dtype.kind == "f":
            zeros, total = zeros + int((b == 0).sum()), total + a.size
    assert 0.4 < zeros / total < 0.55
    assert json.loads(plan.read_text())["granularity"] == granularity
    assert report.passed


@pytest.mark.parametrize(
    "options", [{}, {"criterion": "random", "seed": 3}, {"granularity": "2:4"}]
)
def test_the_same_input_options_and_seed_give_the_same_bytes(
    tmp_path: Path, options: dict[str, object]
) -> None:
    source = DIGITS / "digits_resnet.onnx"
    outputs = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for out in outputs:
        onnxprune.prune(source, out, **{**PLAIN, "check_drift": False, **options})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()


def test_another_seed_of_random_cuts_others(tmp_path: Path, small: Path) -> None:
    plans = []
    for seed in (0, 1):
        plan = tmp_path / f"{seed}.json"
        onnxprune.prune(
            small, dry_run=True, plan=plan, criterion="random", seed=seed, check_latency=False
        )
        plans.append(json.loads(plan.read_text())["removed"])
    assert plans[0] != plans[1]


def test_magnitude_removes_the_smallest(tmp_path: Path) -> None:
    w1 = np.ones((4, 8), "f4") * np.array([5, 1, 6, 2, 7, 3, 8, 4], "f4")
    model = build(
        "(float[N,4] x) => (float[N,2] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        w1=w1,
        w2=np.ones((8, 2), "f4"),
    )
    onnx.save(model, tmp_path / "in.onnx")
    onnxprune.prune(tmp_path / "in.onnx", tmp_path / "out.onnx", round_to=1, check_latency=False)
    kept = numpy_helper.to_array(constants(onnx.load(tmp_path / "out.onnx"))["w1"])
    assert np.array_equal(kept, w1[:, [0, 2, 4, 6]])


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"sparsity": 0.0}, 16),
        ({"sparsity": 0.3, "round_to": 1}, 11),
        ({"sparsity": 0.3, "round_to": 4}, 12),
        ({"sparsity": 0.99, "round_to": 1}, 1),
        ({"sparsity": 0.99, "round_to": 1, "min_channels": 3}, 3),
    ],
)
def test_how_many_channels_stay(small: Path, options: dict[str, float], kept: int) -> None:
    out = small.with_name("out.onnx")
    onnxprune.prune(small, out, check_latency=False, **options)
    assert list(constants(onnx.load(out))["w1"].dims) == [6, kept]


def test_excluded_names_stay_whole(tmp_path: Path) -> None:
    source, out = DIGITS / "digits_resnet.onnx", tmp_path / "out.onnx"
    report = onnxprune.prune(source, out, exclude=["blocks.0.*"], **PLAIN)
    before, after = constants(onnx.load(source)), constants(onnx.load(out))
    assert before["blocks.0.conv1.weight"].dims == after["blocks.0.conv1.weight"].dims
    assert report.after.params < report.before.params


def test_a_dry_run_writes_the_plan_and_the_report_only(run: Run, small: Path) -> None:
    out, plan, report = (small.with_name(n) for n in ("out.onnx", "plan.json", "report.json"))
    code, text, err = run(small, out, "--dry-run", "--plan", plan, "--report", report)
    assert (code, err) == (0, "")
    assert "w1" in text
    assert not out.exists()
    assert set(json.loads(plan.read_text())["removed"]) == {"w1", "w2"}
    data = json.loads(report.read_text())
    assert data["command"] == "prune"
    assert data["after"]["params"] < data["before"]["params"]


def test_inspect_names_dims_costs_and_reasons(run: Run, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    code, text, _ = run("inspect", DIGITS / "digits_vit.onnx", "--report", report)
    assert code == 0
    assert "LayerNormalization normalises over it" in text
    assert "it feeds graph output logits" in text
    data = json.loads(report.read_text())
    assert any(row["size"] == 96 and not row["reason"] for row in data["dims"])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json"]


def test_validate_two_models(run: Run, small: Path) -> None:
    out, report = small.with_name("out.onnx"), small.with_name("report.json")
    assert run(small, out, "--round-to", 1)[0] == 0
    code, text, _ = run("validate", small, out, "--report", report)
    assert code == 0
    assert "drift" in text
    checks = {check["name"] for check in json.loads(report.read_text())["checks"]}
    assert any("drift" in name for name in checks)
    assert run("validate", small, small)[0] == 0


@pytest.mark.parametrize("existing", [True, False])
def test_a_result_that_is_not_exact_is_not_written(
    run: Run, small: Path, monkeypatch: pytest.MonkeyPatch, existing: bool
) -> None:
    monkeypatch.setattr(channels, "prove", lambda *_a, **_k: Equality(math.inf, "y", 1))
    monkeypatch.setattr("onnxprune.validation.proof.prove", lambda *_a, **_k: Equality(0.0, "y", 1))
    out, plan = small.with_name("out.onnx"), small.with_name("plan.json")
    if existing:
        out.write_bytes(b"precious")
    code, text, err = run(small, out, "--plan", plan, "--round-to", 1)
    assert (code, text) == (1, "")
    assert err.startswith("error: cutting is not the same as masking")
    assert len(err.splitlines()) == 1
    assert not plan.exists()
    assert out.read_bytes() == b"precious" if existing else not out.exists()


def test_dims_whose_cut_is_measured_inexact_stay_whole(tmp_path: Path) -> None:
    """A sigmoid makes one half of zero, and a sum without weights counts it."""
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            s = Sigmoid(a)
            t = ReduceSum(s, last)
            h = MatMul(x, w2)
            r = Relu(h)
            g = MatMul(r, w3)
            y = Mul(t, g)
        }""",
        last=np.array([1]),
        w1=(6, 8),
        w2=(6, 8),
        w3=(8, 5),
    )
    onnx.save(model, tmp_path / "in.onnx")
    report = onnxprune.prune(
        tmp_path / "in.onnx", tmp_path / "out.onnx", round_to=1, check_latency=False
    )
    after = constants(onnx.load(tmp_path / "out.onnx"))
    assert list(after["w1"].dims) == [6, 8]
    assert list(after["w3"].dims) == [4, 5]
    assert any("measured not to be exact" in note for note in report.notes)


def test_external_data_stays_external(tmp_path: Path) -> None:
    source, out = tmp_path / "in.onnx", tmp_path / "other" / "out.onnx"
    out.parent.mkdir()
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) y = MatMul(a, w2) }",
        w1=(6, 64),
        w2=(64, 5),
    )
    onnx.save(model, source, save_as_external_data=True, location="d.bin", size_threshold=0)
    onnxprune.prune(source, out, check_latency=False)
    pruned = onnx.load(out)
    assert constants(pruned)["w1"].dims[1] == 32
    assert len(list(out.parent.iterdir())) == 2


def test_a_repair_that_breaks_the_model_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(_tracing: object, _keep: object, pruned: ir.Model, *_rest: object) -> list[object]:
        matrix = next(w for w in weights(pruned) if len(w.shape) == 4)
        replace(matrix, np.full(matrix.shape, np.nan, np.float32))
        return []

    monkeypatch.setattr("onnxprune.steps.repair.refit", spoil)
    output = tmp_path / "out.onnx"
    with pytest.raises(ValidationError, match="not finite"):
        onnxprune.prune(
            DIGITS / "digits_resnet.onnx",
            output,
            data=DIGITS / "digits_calib.npz",
            criterion="obs",
            recover="lstsq",
            check_latency=False,
        )
    assert not output.exists()


def test_outputs_that_were_zero_and_are_not_are_no_broken_model(tmp_path: Path) -> None:
    """On these samples the last Relu lets nothing through, but nearly: no error is relative to anything."""
    text = "(float[N,6] x) => (float[N,40] y) { a = MatMul(x, w1) r = Relu(a) c = Gemm(r, w2, b2) y = Relu(c) }"
    rng = np.random.default_rng(0)
    x, w1, w2 = (rng.standard_normal(n, np.float32) for n in ((64, 6), (6, 16), (16, 40)))
    bias = -(np.maximum(x @ w1, 0) @ w2).max(0) - 1e-3
    source, data, out = tmp_path / "in.onnx", tmp_path / "x.npz", tmp_path / "out.onnx"
    onnx.save(build(text, w1=w1, w2=w2, b2=bias), source)
    np.savez(data, x=x)
    report = onnxprune.prune(
        source, out, data=data, sparsity=0.7, recover="bias", check_latency=False
    )
    (drift,) = (each for each in report.checks if each.name.startswith("drift"))
    assert drift.values["outputs"][0]["max_abs"] > 0
    assert out.exists()


@pytest.mark.parametrize("target", [None, "macs=0.6"])
def test_a_single_batch_of_a_model_that_fixes_its_size_is_enough(
    tmp_path: Path, target: str | None
) -> None:
    model = build(
        "(float[32,6] x) => (float[32,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        w1=(6, 16),
        w2=(16, 5),
    )
    source, data, out = tmp_path / "in.onnx", tmp_path / "x.npz", tmp_path / "out.onnx"
    onnx.save(model, source)
    np.savez(data, x=np.random.default_rng(0).standard_normal((32, 6), np.float32))
    report = onnxprune.prune(source, out, data=data, target=target, check_latency=False)
    assert report.after.params < 0.7 * report.before.params


def test_no_module_hides_what_the_package_offers(tmp_path: Path) -> None:
    """Python binds a submodule to its package once it is imported, under the name that a function may have there."""
    code = """
import onnxprune, pkgutil, importlib
for each in pkgutil.walk_packages(onnxprune.__path__, "onnxprune."):
    if not each.name.endswith("__main__"):
        importlib.import_module(each.name)
for name in onnxprune.__all__:
    assert not isinstance(getattr(onnxprune, name), type(onnxprune)), name
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_nothing_that_is_read_is_written(tmp_path: Path) -> None:
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        w1=(6, 16),
        w2=(16, 5),
    )
    source, data = tmp_path / "in.onnx", tmp_path / "x.npz"
    onnx.save(model, source, save_as_external_data=True, location="w.bin", size_threshold=0)
    rng = np.random.default_rng(0)
    np.savez(data, x=rng.standard_normal((32, 6), np.float32), labels=rng.integers(0, 5, 32))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    out = tmp_path / "out.onnx"
    for call in (
        lambda: onnxprune.prune(source, data, data=data),
        lambda: onnxprune.prune(source, out, data=data, plan=data),
        lambda: onnxprune.prune(source, out, plan=tmp_path / "w.bin"),
        lambda: onnxprune.prune(source, tmp_path / "w.bin"),
        lambda: onnxprune.finetune(source, data, data),
        lambda: onnxprune.finetune(source, data, data, evaluation=data),
    ):
        with pytest.raises(OnnxPruneError, match="would overwrite"):
            call()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    nowhere = tmp_path / "nowhere" / "r.json"
    with pytest.raises(OnnxPruneError, match="does not exist"):
        onnxprune.finetune(source, out, data, report=nowhere)
    assert not out.exists()


@pytest.mark.parametrize("recover", ["bias", "lstsq", "finetune"])
def test_what_is_excluded_stays_as_it_is(recover: str, tmp_path: Path) -> None:
    source, out = DIGITS / "digits_resnet.onnx", tmp_path / "out.onnx"
    onnxprune.prune(
        source,
        out,
        data=DIGITS / "digits_calib.npz",
        recover=recover,
        exclude=["head*"],
        check_latency=False,
        **({"train": {"epochs": 1, "block_epochs": 1}} if recover == "finetune" else {}),
    )
    before, after = (constants(onnx.load(path)) for path in (source, out))
    names = [name for name in before if name.startswith("head")]
    assert len(names) == 2
    for name in names:
        kept = numpy_helper.to_array(after[name])
        np.testing.assert_array_equal(kept, numpy_helper.to_array(before[name]))
    with pytest.raises(OptionError, match="no tensor and no node of the model is named 'haed"):
        onnxprune.prune(source, out, exclude=["haed*"])


def test_a_target_out_of_reach_is_named_as_it_was_given(tmp_path: Path) -> None:
    """Although the cut is made in stages, each with a target of its own."""
    text = "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }"
    source, data = tmp_path / "in.onnx", tmp_path / "x.npz"
    onnx.save(build(text, w1=(6, 16), w2=(16, 5)), source)
    np.savez(data, x=np.random.default_rng(0).standard_normal((64, 6), np.float32))
    with pytest.raises(NothingToPruneError, match=r"macs=0\.01 is out of reach: .* 0\.06"):
        onnxprune.prune(
            source, tmp_path / "out.onnx", data=data, target="macs=0.01", check_latency=False
        )


def test_nothing_is_folded_into_a_bias_that_is_excluded(tmp_path: Path) -> None:
    """The last hidden unit is always 2: its share of the outputs would go into their biases."""
    text = (
        "(float[N,6] x) => (float[N,5] y) { a = Gemm(x, w1, b1) r = Relu(a) y = Gemm(r, w2, b2) }"
    )
    w1, b1 = np.random.default_rng(0).standard_normal((6, 8), np.float32), np.zeros(8, np.float32)
    w1[:, -1], b1[-1] = 0, 2
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(build(text, w1=w1, b1=b1, w2=(8, 5), b2=(5,)), source)
    same = []
    for exclude in ([], ["b2"]):
        options = {"exclude": exclude, "recover": "bias", "data": tmp_path / "x.npz"}
        np.savez(
            tmp_path / "x.npz", x=np.random.default_rng(1).standard_normal((32, 6), np.float32)
        )
        onnxprune.prune(
            source, out, sparsity=0.5, criterion="magnitude", check_latency=False, **options
        )
        before, after = (
            numpy_helper.to_array(constants(onnx.load(p))["b2"]) for p in (source, out)
        )
        same.append(np.array_equal(before, after))
    assert same == [False, True]
