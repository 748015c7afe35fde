"""Channels that nobody feels, and constants that can be folded so that nobody does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.fold import dead_indices, fold_constants
from onnxprune.runtime.sessions import run, session
from tests.dims.exact import build
from tests.loaded import traced

RANDOM = np.random.default_rng(0)


def matrix(*shape: int, rows: tuple[int, ...] = (), columns: tuple[int, ...] = ()) -> np.ndarray:
    w = RANDOM.standard_normal(shape).astype("f4")
    w[list(rows)] = 0
    w[:, list(columns)] = 0
    return w


def dead(text: str, **weights: np.ndarray | tuple[int, ...]) -> dict[int, list[int]]:
    """By size of the Dim."""
    found = dead_indices(traced(text, **weights))
    return {dim.size: np.flatnonzero(~mask).tolist() for dim, mask in found.items()}


CHAIN = """(float[1,3,4,4] x) => (float[1,2,%s] y) {
    a = Conv(x, w, b)
    r = Relu(a)
    y = Conv<pads=[%s]>(r, v, c)
}"""


def test_dead_are_units_that_give_zero_and_units_that_nobody_reads() -> None:
    bias = np.array([-1, 0, 2, -1, 1], "f4")
    found = dead(
        CHAIN % ("4,4", "1,1,1,1"),
        w=matrix(5, 3, 1, 1, rows=(0, 2)),
        b=bias,
        v=matrix(2, 5, 3, 3, columns=(4,)),
        c=(2,),
    )
    assert found == {5: [0, 4]}  # 2 is a constant, but not at the border


def test_an_index_is_dead_only_if_all_its_readers_can_do_without() -> None:
    text = """(float[1,3] x) => (float[1,2] y, float[1,2] z) {
        a = MatMul(x, w)
        y = MatMul(a, v)
        z = MatMul(a, u)
    }"""
    w = matrix(3, 4)
    assert dead(text, w=w, v=matrix(4, 2, rows=(1, 2)), u=matrix(4, 2, rows=(2, 3))) == {4: [2]}


def test_in_a_residual_stream_the_identity_must_be_silent_too() -> None:
    text = """(float[1,3] x) => (float[1,2] y) {
        a = MatMul(x, w)
        h = MatMul(a, u)
        s = Add(a, h)
        y = MatMul(s, v)
    }"""
    u = matrix(4, 4, columns=(1, 2))
    assert dead(text, w=matrix(3, 4, columns=(1,)), u=u, v=(4, 2)) == {4: [1]}


def test_of_a_dim_that_is_dead_as_a_whole_one_index_stays() -> None:
    found = dead(
        CHAIN % ("4,4", "0,0,0,0"),
        w=np.zeros((5, 3, 1, 1), "f4"),
        b=np.zeros(5, "f4"),
        v=(2, 5, 1, 1),
        c=(2,),
    )
    assert found == {5: [1, 2, 3, 4]}


def test_what_an_unknown_op_reads_is_alive() -> None:
    text = """(float[1,3] x) => (float[1,4] y) {
        a = MatMul(x, w)
        n = LpNormalization(a)
        y = Einsum<equation="ij,jk->ik">(n, v)
    }"""
    assert dead(text, w=matrix(3, 5), v=matrix(5, 4, rows=(1,))) == {}


@pytest.mark.parametrize("kind", ["conv", "gemm", "matmul", "matmul+add"])
def test_constants_become_part_of_the_bias(kind: str, tmp_path: Path) -> None:
    second = {
        "conv": "y = Conv(r, v)",
        "gemm": "y = Gemm<transB=1>(r, v, c)",
        "matmul": "m = MatMul(r, v)\n y = Relu(m)",
        "matmul+add": "m = MatMul(r, v)\n y = Add(m, c)",
    }[kind]
    conv = kind == "conv"
    weights = {
        "w": matrix(5, 3, 1, 1, rows=(1, 3)) if conv else matrix(3, 5, columns=(1, 3)),
        "b": np.array([[0, 2, 0, -2, 0]], "f4").reshape((5, 1, 1) if conv else (5,)),
        "v": {"conv": (2, 5, 1, 1), "gemm": (2, 5)}.get(kind, (5, 2)),
    }
    if ", c)" in second:
        weights["c"] = (2,)
    tail = ",4,4" if conv else ""
    first = "Conv" if conv else "MatMul"
    text = f"""(float[1,3{tail}] x) => (float[1,2{tail}] y) {{
        p = {first}(x, w)
        a = Add(p, b)
        r = Relu(a)
        {second}
    }}"""
    model = build(text, **weights)
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(model, source)
    report = onnxprune.prune(source, out, sparsity=0.0, check_latency=False)
    assert any("2, 1 of them constant" in note for note in report.notes)
    shapes = {t.name: numpy_helper.to_array(t).shape for t in onnx.load(out).graph.initializer}
    assert 3 in shapes["w"]
    assert 3 in shapes["v"]
    feed = {"x": matrix(1, 3, *((4, 4) if conv else ()))}
    (before,), (after,) = run(session(source), feed), run(session(out), feed)
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_weights_stay_the_originals_where_no_repair_is_wanted(tmp_path: Path) -> None:
    weights = {"w": matrix(5, 3, 1, 1, rows=(0, 2)), "b": np.array([-1, 0, 2, -1, 1], "f4")}
    model = build(CHAIN % ("4,4", "0,0,0,0"), v=(2, 5, 1, 1), c=(2,), **weights)
    source, out, plan = tmp_path / "in.onnx", tmp_path / "out.onnx", tmp_path / "plan.json"
    onnx.save(model, source)
    for recover, removed in (("none", [0]), ("auto", [0, 2])):
        report = onnxprune.prune(
            source, out, sparsity=0.0, recover=recover, plan=plan, check_latency=False
        )
        assert report.dims[0].kept == 5 - len(removed)
        text = plan.read_text()
        assert f'"dead": {{"w": {{"0": {removed}}}' in text


def test_dead_channels_go_before_all_others(tmp_path: Path) -> None:
    w = matrix(4, 3, 1, 1, rows=(2,))
    v = matrix(2, 4, 1, 1)
    v[:, 2] = 100  # large weights, of nothing
    source, out = tmp_path / "in.onnx", tmp_path / "out.onnx"
    onnx.save(build(CHAIN % ("4,4", "0,0,0,0"), w=w, b=np.zeros(4, "f4"), v=v, c=(2,)), source)
    onnxprune.prune(source, out, sparsity=0.25, round_to=1, recover="none", check_latency=False)
    left = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    np.testing.assert_array_equal(left["w"], np.delete(w, 2, 0))


def test_nothing_constant_is_nothing_folded() -> None:
    tracing = traced(CHAIN % ("4,4", "0,0,0,0"), w=(5, 3, 1, 1), b=(5,), v=(2, 5, 1, 1), c=(2,))
    found = fold_constants(tracing, frozenset(info.dim for info in tracing.free()))
    assert found.model is tracing.model
    assert found.channels == 0
