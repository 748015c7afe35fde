"""Leaving layers out, on a trained model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import load
from onnxprune.runtime.data import read_data
from onnxprune.runtime.sessions import session
from onnxprune.steps import recovery
from onnxprune.steps.lines import Stage
from onnxprune.validation.accuracy import accuracy
from tests.dims.exact import build
from tests.dims.exact import session as plain_session
from tests.models import DIGITS, linear

RESNET, VIT = DIGITS / "digits_resnet.onnx", DIGITS / "digits_vit.onnx"
CALIBRATION, TEST = DIGITS / "digits_calib.npz", DIGITS / "digits.npz"


def prune(path: Path, model: Path = RESNET, **options: object) -> onnxprune.Report:
    common = {"data": CALIBRATION, "granularity": "layer", "check_latency": False}
    return onnxprune.prune(model, path, **{**common, **options})


def top1(path: Path) -> float:
    return accuracy(session(path, threads=1), read_data(TEST, load(path))).value


def silent(path: Path, layers: list[dict[str, object]]) -> onnx.ModelProto:
    """The model with zeros in the place of some branches."""
    model = onnx.load(path)
    for layer in layers:
        (add,) = (node for node in model.graph.node if layer["sum"] in node.output)
        name = f"{layer['sum']}/none"
        add.input[int(str(layer["index"]))] = name
        zero = onnx.numpy_helper.from_array(np.zeros(1, "f4"), name)
        model.graph.initializer.append(zero)
    return model


@pytest.mark.parametrize("model", [RESNET, VIT], ids=["resnet", "vit"])
def test_what_is_left_is_the_original_without_the_plans_layers(model: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "out.onnx", tmp_path / "plan.json"
    report = prune(out, model, plan=plan, sparsity=0.5, recover="none")
    layers = json.loads(plan.read_text())["layers"]
    assert [layer["sum"] for layer in layers] == [row.name for row in report.layers]
    assert len(layers) == {RESNET: 2, VIT: 3}[model]  # of 4, and of 6
    images = {"image": np.load(TEST)["image"][:50]}
    (a,) = plain_session(silent(model, layers)).run(None, images)
    (b,) = plain_session(onnx.load(out)).run(None, images)
    np.testing.assert_allclose(a, b, atol=1e-4)
    assert report.passed
    assert report.after is not None
    assert report.before is not None
    assert report.after.params == report.before.params - sum(row.params for row in report.layers)
    assert report.after.macs == (report.before.macs or 0) - sum(row.macs for row in report.layers)


def test_the_layers_that_stay_make_up_for_those_that_go(tmp_path: Path) -> None:
    bare, fitted = tmp_path / "none.onnx", tmp_path / "lstsq.onnx"
    prune(bare, target="macs=0.6", recover="none")
    prune(fitted, target="macs=0.6")
    assert top1(bare) < 0.6
    assert top1(fitted) > 0.9


def test_a_layer_leaves_its_mean_behind(tmp_path: Path) -> None:
    report = prune(tmp_path / "out.onnx", sparsity=0.25, recover="bias")
    (row,) = report.layers
    original, pruned = onnx.load(RESNET), onnx.load(tmp_path / "out.onnx")
    (add,) = (node for node in pruned.graph.node if row.name in node.output)
    (mean,) = (w for w in pruned.graph.initializer if w.name in add.input)
    (same,) = (node for node in original.graph.node if row.name in node.output)
    operand = same.input[list(add.input).index(mean.name)]
    original.graph.output.append(onnx.helper.make_empty_tensor_value_info(operand))
    images = {"image": np.load(CALIBRATION)["image"]}
    *_, values = plain_session(original).run(None, images)
    expected = values.mean((0, 2, 3), keepdims=True)
    np.testing.assert_allclose(onnx.numpy_helper.to_array(mean), expected, rtol=1e-4, atol=1e-5)


def test_training_takes_them_further(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    report = prune(out, sparsity=0.75, recover="finetune", train={"epochs": 20})
    assert len(report.layers) == 3
    (training,) = (check for check in report.checks if check.name == "training")
    assert training.values["best"]["loss"] < 0.85 * training.values["start"]["loss"]


def test_as_many_go_as_the_target_takes(tmp_path: Path) -> None:
    for kind in ("macs", "params", "bytes"):
        report = prune(tmp_path / f"{kind}.onnx", target=f"{kind}=0.7", recover="none")
        assert report.after is not None
        assert report.before is not None
        left = getattr(report.after, kind) / getattr(report.before, kind)
        assert 0.2 < left < 0.72


def test_steps_go_on_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"steps": 3, "sparsity": 0.75, "schedule": "linear"}
    prune(tmp_path / "whole.onnx", **options)
    whole = recovery.Worker.step

    def step(worker: recovery.Worker, stage: Stage[object], number: int, *rest: object) -> object:
        if number == 3:
            raise KeyboardInterrupt
        return whole(worker, stage, number, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(recovery.Worker, "step", step)
        with pytest.raises(KeyboardInterrupt):
            prune(tmp_path / "killed.onnx", **options)
    report = prune(tmp_path / "killed.onnx", **options)
    assert len(report.layers) == 3
    assert (tmp_path / "killed.onnx").read_bytes() == (tmp_path / "whole.onnx").read_bytes()


def test_a_drop_says_how_many_may_go(tmp_path: Path) -> None:
    report = prune(tmp_path / "out.onnx", target="drop=0.05")
    assert len(report.layers) == 1
    assert top1(tmp_path / "out.onnx") > 0.95


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"target": "macs=0.01"}, NothingToPruneError, "the target macs=0.01 is out of reach"),
        ({"sparsity": 0.05}, NothingToPruneError, "at sparsity 0.05 none of 4 layers goes"),
        ({"exclude": ["*"]}, NothingToPruneError, "no layers that a sum goes round"),
        ({"scope": "layer"}, OptionError, "scope layer does not go with granularity layer"),
        ({"criterion": "magnitude"}, OptionError, "ranks channels and weights only"),
        ({"granularity": "channel", "criterion": "outputs"}, OptionError, "ranks layers only"),
        ({"data": None}, OptionError, "give some with --data"),
        ({"sparse_format": True}, OptionError, "granularity layer leaves none"),
        ({"threshold": 0.1}, OptionError, "threshold"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, object], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        prune(tmp_path / "out.onnx", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_residual_connections_has_no_layers(tmp_path: Path) -> None:
    model = linear(tmp_path / "m.onnx", np.ones((4, 3), "f4"))
    with pytest.raises(NothingToPruneError, match="no layers that a sum goes round"):
        prune(tmp_path / "out.onnx", model, data="synthetic")


def test_inspect_shows_the_layers_that_could_go() -> None:
    bare = onnxprune.inspect(VIT).layers
    seen = onnxprune.inspect(VIT, data=CALIBRATION).layers
    assert len(bare) == 6
    assert all(row.moved is None and row.params > 9000 for row in bare)
    assert [row.name for row in seen] == [row.name for row in bare]
    assert all(row.moved is not None and row.moved > 0 for row in seen)


def test_rewinding_restores_weights_and_not_the_layers(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    report = prune(out, sparsity=0.5, steps=2, recover="bias", rewind="weights")
    assert len(report.layers) == 2
    before = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(RESNET).graph.initializer}
    after = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(out).graph.initializer}
    assert len([name for name in after if name.endswith("/mean")]) == 2
    assert all(np.array_equal(w, before[n]) for n, w in after.items() if not n.endswith("/mean"))


def test_layers_within_layers_count_as_gone_with_them(tmp_path: Path) -> None:
    text = """(float[N,6] x) => (float[N,6] y) {
        a = MatMul(x, w)
        b = MatMul(a, v)
        s = Add(b, a)
        c = MatMul(s, u)
        t = Add(x, c)
        d = MatMul(t, r)
        y = Add(t, d)
    }"""
    onnx.save(build(text, w=(6, 6), v=(6, 6), u=(6, 6), r=(6, 6)), tmp_path / "m.onnx")
    for sparsity in (0.34, 0.67, 0.99):
        out = tmp_path / f"{sparsity}.onnx"
        report = prune(out, tmp_path / "m.onnx", data="synthetic", sparsity=sparsity)
        assert report.passed
    assert [node.op_type for node in onnx.load(out).graph.node] in (["Add", "Add"], ["Add"] * 3)


SOME_ROWS = """(float[N,6] x) => (float[%s] y) {
    a = MatMul(x, w)
    s = Add(x, a)
    m = ReduceMax<axes=[1], keepdims=0>(s)
    k = Greater(m, z)
    %s
}"""


def test_an_output_may_change_its_size(tmp_path: Path) -> None:
    """It has a row for each sample that the model takes for something."""
    text = SOME_ROWS % ("M,6", "y = Compress<axis=0>(s, k)")
    onnx.save(build(text, w=(6, 6), z=np.float32(0.5)), tmp_path / "m.onnx")
    report = prune(tmp_path / "out.onnx", tmp_path / "m.onnx", data="synthetic", sparsity=0.99)
    assert report.layers[0].moved is not None
    assert report.layers[0].moved > 0


def test_outputs_that_cannot_be_compared_say_nothing_of_layers(tmp_path: Path) -> None:
    text = SOME_ROWS % ("6,M", "p = Compress<axis=0>(s, k)\n y = Transpose(p)")
    onnx.save(build(text, w=(6, 6), z=np.float32(0.5)), tmp_path / "m.onnx")
    with pytest.raises(NothingToPruneError, match="always as many"):
        prune(tmp_path / "out.onnx", tmp_path / "m.onnx", data="synthetic", sparsity=0.99)
    assert onnxprune.inspect(tmp_path / "m.onnx", data="synthetic").layers[0].moved is None
