from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.errors import DataError, ModelError
from onnxprune.runtime.inputs import (
    candidate_shapes,
    graph_inputs,
    random_feed,
    random_inputs,
    running_shapes,
    varied_shapes,
)
from tests.loaded import loaded

MATMUL = "{ y = MatMul(x, w) }"


def test_open_axes_get_sizes_that_run() -> None:
    """16 times the second axis must be 128 in all: found by trying."""
    model = loaded(
        "(float[N, S] x) => (float[N, 3] y) { r = Reshape(x, to) y = MatMul(r, w) }",
        to=np.array([-1, 128]),
        w=(128, 3),
    )
    shapes = next(running_shapes(model))
    assert shapes["x"][0] * shapes["x"][1] % 128 == 0


def test_images_and_sequences_with_one_name_for_one_size() -> None:
    model = loaded(
        """(float[N,3,H,W] image, float[N,T] text) => (float[N,K] y) {
            c = Conv(image, w)
            g = GlobalAveragePool(c)
            f = Flatten(g)
            y = Concat<axis=1>(f, text)
        }""",
        w=(4, 3, 3, 3),
    )
    shapes = next(running_shapes(model))
    assert shapes["image"][0] == shapes["text"][0] == 1
    assert shapes["image"][1] == 3
    assert min(shapes["image"][2:]) >= 3


def test_sizes_that_are_sums_follow_from_their_terms() -> None:
    """Key-value caches: no other size of the mask fits the other two."""
    model = loaded(
        """(float[N,past,4] old, float[N,T,4] new, float[N,M] mask) => (float[N,L,4] y) {
            all = Concat<axis=1>(old, new)
            m = Unsqueeze(mask, last)
            y = Mul(all, m)
        }""",
        last=np.array([2]),
    )
    graph_inputs(model)[2].shape = ir.Shape(["N", "past + T"])
    shapes = next(running_shapes(model))
    assert shapes["old"][1] > 1
    assert shapes["mask"][1] == shapes["old"][1] + shapes["new"][1]


def test_names_that_are_no_expressions_are_names() -> None:
    model = loaded("(float[N,6] x) => (float[N,6] y) { y = Relu(x) }")
    graph_inputs(model)[0].shape = ir.Shape(["batch-size", 6])
    assert next(running_shapes(model)) == {"x": (1, 6)}


def test_tokens_are_not_tried_by_the_second_of_sound() -> None:
    text, sound = (
        loaded(f"({kind}[N, S] x) => ({kind}[N, S] y) {{ y = Identity(x) }}")
        for kind in ("int64", "float")
    )
    for model, most in ((text, 2048), (sound, 16000)):
        assert max(shapes["x"][1] for shapes in candidate_shapes(model, {})) == most


@pytest.mark.parametrize(
    ("text", "constants"),
    [
        ("s = Sub(x, w) y = Relu(s)", {"w": (1, 777)}),
        ("y = Gather<axis=1>(x, w)", {"w": np.array([3, 7776, 12])}),
        ("y, rest = Split<axis=1>(x, w)", {"w": np.array([700, 77])}),
        ("r = Relu(x) y = MatMul(r, w)", {"w": (777, 3)}),
    ],
)
def test_sizes_that_constants_ask_for(text: str, constants: dict[str, Any]) -> None:
    """No usual size is 777, or large enough for the index 7776."""
    model = loaded(f"(float[N, S] x) => (float[N, K] y) {{ {text} }}", **constants)
    assert next(running_shapes(model))["x"] in {(1, 777), (1, 7777)}


def test_declared_sizes_and_given_shapes_are_kept() -> None:
    model = loaded(f"(float[N, 6] x) => (float[N, 3] y) {MATMUL}", w=(6, 3))
    assert next(running_shapes(model))["x"][1] == 6
    assert next(running_shapes(model, {"x": (5, 6)})) == {"x": (5, 6)}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1, 6)}, "no input 'z'; it has 'x'"),
        ({"x": (1, 7)}, "is declared as"),
        ({"x": (1, 1, 6)}, "is declared as"),
    ],
)
def test_shapes_that_do_not_fit_the_model(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    model = loaded(f"(float[N, 6] x) => (float[N, 3] y) {MATMUL}", w=(6, 3))
    with pytest.raises(DataError, match=message):
        next(running_shapes(model, shapes))


def test_a_model_that_never_runs_says_on_what_it_was_tried() -> None:
    model = loaded(
        "(float[N, S] x) => (float[N, 3] y) { r = Reshape(x, to) y = MatMul(r, w) }",
        to=np.array([7, 11, 13]),
        w=(13, 3),
    )
    with pytest.raises(ModelError, match=r"with x \[1, .*--shape"):
        next(running_shapes(model))


def test_the_same_seed_gives_the_same_arrays_of_the_right_types() -> None:
    model = loaded(
        "(float[N,2] x, int64[N] i, bool[N] b, float16[N] h, string[N] s) => (float[N,2] y) { y = Relu(x) }"
    )
    shapes = {"x": (3, 2), "i": (3,), "b": (3,), "h": (3,), "s": (3,)}
    one, two, other = (random_feed(model, shapes, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(one[name], two[name]) for name in shapes)
    assert not np.array_equal(one["x"], other["x"])
    kinds = [one[name].dtype for name in shapes]
    assert kinds == [np.float32, np.int64, np.bool_, np.float16, np.dtype(object)]
    assert set(one["i"]) <= {0, 1}


def test_initializers_that_are_inputs_are_not_fed() -> None:
    model = loaded(
        f"(float[N,6] x, float[6,3] w) => (float[N,3] y) {MATMUL}", w=(6, 3), ir_version=3, opset=9
    )
    assert [each.name for each in graph_inputs(model)] == ["x"]
    assert set(random_inputs(model)) == {"x"}


def test_variations_change_one_open_axis_at_a_time_batches_last() -> None:
    model = loaded("(float[N,T] x, float[N,6] z) => (float[N,6] y) { y = Relu(z) }")
    found = {"x": (1, 100), "z": (1, 6)}
    tried = list(varied_shapes(model, {}, found))
    assert tried[0] == {"x": (1, 8), "z": (1, 6)}
    assert tried[-2] == {"x": (16000, 100), "z": (16000, 6)}
    assert all(
        varied["x"] == (1, 100)
        for varied in varied_shapes(model, {"x": (1, 100)}, found)
        if varied["z"] == (1, 6)
    )
