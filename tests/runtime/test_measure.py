from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.runtime.measure import Measured, measure
from tests.loaded import loaded, value


def constant(measured: Measured, model: ir.Model, name: str) -> list[int] | None:
    found = measured.elements(value(model, name))
    return None if found is None or None in found else [n for n in found if n is not None]


def test_shapes_come_from_the_run_not_from_annotations() -> None:
    model = loaded(
        "(float[N,6] x) => (float[N,3] y) <float[N,99] a> { a = MatMul(x, w) y = MatMul(a, v) }",
        w=(6, 8),
        v=(8, 3),
    )
    measured = measure(model, {"x": (2, 6)})
    assert measured.shapes[value(model, "a")] == (2, 8)
    assert measured.shapes[value(model, "w")] == (6, 8)
    assert measured.inputs == {"x": (2, 6)}


def test_which_integers_depend_on_the_sizes_of_the_inputs() -> None:
    model = loaded(
        """(float[N,T,6] x) => (float[N,L] y) {
            a = MatMul(x, w)
            shape = Shape(a)
            n = Slice(shape, c0, c1)
            last = Slice(shape, c2, c3)
            half = Div(last, c2)
            to = Concat<axis=0>(n, minus)
            y = Reshape(a, to)
        }""",
        w=(6, 8),
        minus=np.array([-1]),
        **{f"c{k}": np.array([k]) for k in range(4)},
    )
    measured = measure(model)
    assert constant(measured, model, "half") == [4]
    assert constant(measured, model, "last") == [8]
    assert constant(measured, model, "n") is None
    assert constant(measured, model, "shape") is None
    assert measured.fixed[value(model, "shape")].tolist() == [False, False, True]
    assert measured.fixed[value(model, "to")].tolist() == [False, True]
    assert constant(measured, model, "c2") == [2]


def test_integers_change_with_one_axis_where_the_others_cannot() -> None:
    """The second axis has to be 6 for the weight: only the first and the third can have other sizes."""
    model = loaded(
        """(float[N,C,T] x) => (float[N,T,8] y, int64[K] times) {
            turned = Transpose<perm=[0,2,1]>(x)
            y = MatMul(turned, w)
            times = Shape<start=2>(x)
            channels = Shape<start=1,end=2>(x)
            batch = Shape<end=1>(x)
        }""",
        w=(6, 8),
    )
    measured = measure(model, {"x": (1, 6, 8)})
    assert constant(measured, model, "times") is None
    assert constant(measured, model, "batch") is None
    assert constant(measured, model, "channels") == [6]
    assert measured.untold == {("x", 1)}


def test_fixed_inputs_make_all_of_them_fixed() -> None:
    model = loaded(
        "(float[2,3] x) => (float[6] y) { s = Shape(x) p = ReduceProd(s) y = Reshape(x, p) }"
    )
    measured = measure(model)
    assert constant(measured, model, "s") == [2, 3]
    assert constant(measured, model, "p") == [6]
    assert not measured.untold


def test_bodies_are_measured_the_branch_not_taken_too() -> None:
    model = loaded(
        """(float[N,6] x, bool c) => (float[N,K] y) {
            a = MatMul(x, w)
            y = If (c) <
                then_branch = yes () => (float[N,K] t) { t = Relu(a) },
                else_branch = no () => (float[N,K] e) { b = MatMul(a, v) e = Neg(b) }>
        }""",
        w=(6, 8),
        v=(8, 8),
    )
    measured = measure(model)
    assert measured.failed == 0
    for name in ("t", "b", "e"):
        assert measured.shapes[value(model, name)] == (1, 8)


@pytest.mark.parametrize("big", [True, False])
def test_weights_of_a_big_model_are_not_read(big: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune.runtime import stand_ins

    if big:
        monkeypatch.setattr(stand_ins, "BIG_MODEL", 1)
        monkeypatch.setattr(stand_ins, "BIG_WEIGHT", 1)
    model = loaded(
        "(float[N,6] x) => (float[N,3] y) { a = MatMul(x, w) y = MatMul(a, v) }", w=(6, 8), v=(8, 3)
    )
    measured = measure(model)
    assert measured.shapes[value(model, "a")] == (1, 8)
    assert "w" in model.graph.initializers
