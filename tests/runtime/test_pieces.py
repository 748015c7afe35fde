from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.graph import inline, load, replace, weights
from onnxprune.runtime import pieces
from onnxprune.runtime.pieces import outputs, run_in_pieces
from onnxprune.runtime.sessions import run, session
from tests.graph.files import ZOO, branches, called_twice, info, model, saved, with_external_data
from tests.models import random, write


def residual(folder: Path, layers: int = 5) -> Path:
    """`h = relu(h @ w_k) + h`, so that values stay alive over a piece."""
    nodes, held = [], {}
    for k in range(layers):
        before, after = ("x" if k == 0 else f"h{k}"), ("y" if k == layers - 1 else f"h{k + 1}")
        held[f"w{k}"] = random(16, 16, seed=k) / 4
        nodes += [
            helper.make_node("MatMul", [before, f"w{k}"], [f"m{k}"]),
            helper.make_node("Relu", [f"m{k}"], [f"r{k}"]),
            helper.make_node("Add", [f"r{k}", before], [after]),
        ]
    return write(folder / "m.onnx", nodes, held, {"x": ["n", 16]})


def same(path: Path, feeds: list[dict[str, np.ndarray]], budget: int) -> None:
    """Holds a run in pieces against one of the whole."""
    whole = session(path, threads=1)
    found = run_in_pieces(load(path), feeds, budget=budget, threads=1)
    for feed, result in zip(feeds, found, strict=True):
        for a, b in zip(run(whole, feed), result, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 1024, 3000, 10**9])
@pytest.mark.parametrize("fed", [0, 10**9])
def test_equals_the_whole(
    tmp_path: Path, budget: int, fed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "FED", fed)
    same(residual(tmp_path), [{"x": random(2, 16, seed=s)} for s in range(3)], budget)


def test_number_of_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def spy(piece: ir.Model, providers: object, threads: object = None) -> object:
        made.append(len(piece.graph))
        return session(piece, threads=1)

    monkeypatch.setattr(pieces, "session", spy)
    run_in_pieces(load(residual(tmp_path)), [{"x": random(1, 16)}], budget=2048)
    assert made == [6, 6, 3]


def test_no_more_than_a_piece_is_read_at_a_time(tmp_path: Path) -> None:
    held = load(residual(tmp_path))
    events: list[str] = []
    for weight in weights(held):
        array = weight.array()

        def make(name: str = weight.name, array: np.ndarray = array) -> ir.TensorProtocol:
            events.append(name)
            return ir.tensor(array)

        replace(weight, ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=ir.Shape(weight.shape)))
    run_in_pieces(held, [{"x": random(1, 16)}] * 3, budget=1)
    assert events == ["w0", "w1", "w2", "w3", "w4"]


def test_external_data(tmp_path: Path) -> None:
    same(with_external_data(tmp_path), [{"x": random(3, 16)}], 1)


def test_weights_in_branches_and_captured_values(tmp_path: Path) -> None:
    proto = branches()
    proto.graph.node[0].input[0] = "d"
    proto.graph.node.insert(0, helper.make_node("Not", ["c"], ["d"]))
    proto.graph.node.insert(0, helper.make_node("MatMul", ["z", "w"], ["x"]))
    proto.graph.input[1].CopyFrom(info("z", 4))
    proto.graph.initializer.append(numpy_helper.from_array(random(4, 4), "w"))
    feeds = [{"c": np.array(c), "z": random(4)} for c in (True, False)]
    same(saved(proto, tmp_path), feeds, 1)


def test_an_output_of_the_middle(tmp_path: Path) -> None:
    path = residual(tmp_path)
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info("h2", onnx.TensorProto.FLOAT, None))
    onnx.save(proto, path)
    same(path, [{"x": random(2, 16)}], 1)


def test_functions(tmp_path: Path) -> None:
    path = saved(called_twice(), tmp_path)
    for held in (load(path), inline(load(path))):
        assert (
            run_in_pieces(held, [{"x": np.ones(4, np.float32)}], budget=1)[0][0].tolist()
            == [9.0] * 4
        )


def test_small_models_run_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = load(residual(tmp_path))
    feeds = [{"x": random(2, 16)}]
    expected = outputs(held, feeds)
    monkeypatch.setattr(pieces, "LARGEST_WHOLE", 100)
    np.testing.assert_allclose(outputs(held, feeds)[0][0], expected[0][0], rtol=1e-4)
    monkeypatch.setattr(pieces, "run_in_pieces", lambda *a, **k: "pieces")
    assert outputs(held, feeds) == "pieces"


def test_values_that_are_no_tensors(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("SequenceConstruct", ["x", "w"], ["s"]),
        helper.make_node("Neg", ["v"], ["u"]),
        helper.make_node("ConcatFromSequence", ["s"], ["t"], axis=0),
        helper.make_node("Add", ["t", "u"], ["y"]),
    ]
    held = {"w": random(4), "v": random(8)}
    initializers = [numpy_helper.from_array(v, k) for k, v in held.items()]
    proto = model(helper.make_graph(nodes, "g", [info("x", 4)], [info("y", 8)], initializers))
    path = saved(proto, tmp_path)
    same(path, [{"x": random(4)}], 10**6)
    with pytest.raises(ModelError, match="'s' is no tensor"):
        run_in_pieces(load(path), [{"x": random(4)}], budget=1)


def test_inputs_that_do_not_fit(tmp_path: Path) -> None:
    held = load(residual(tmp_path))
    with pytest.raises(ModelError, match="no input 'z'"):
        run_in_pieces(held, [{"z": random(1)}], budget=1)
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        run_in_pieces(held, [{"x": random(1, 15)}], budget=1)


@pytest.mark.skipif(not ZOO.exists(), reason="no models to try")
@pytest.mark.parametrize(
    "name", ["shufflenet_v2", "silero_vad_half", "vitTracker", "yunet_n_dynamic"]
)
def test_real_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "FED", 4096)
    entries = {e["file"]: e for e in json.loads((ZOO / "zoo.json").read_text())}
    shapes = entries[f"{name}.onnx"]["input_shapes"]
    held = load(ZOO / f"{name}.onnx")
    rng = np.random.default_rng(0)
    feed = {}
    for value in held.graph.inputs:
        assert value.shape is not None
        assert value.dtype is not None
        shape = (shapes or {}).get(value.name) or [
            d if isinstance(d, int) else 1 for d in value.shape
        ]
        feed[value.name] = (rng.standard_normal(shape) + 1).astype(value.dtype.numpy())
    if "sr" in feed:
        feed["sr"][...] = 16000
    same(ZOO / f"{name}.onnx", [feed], 100_000)
