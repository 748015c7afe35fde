from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import check

from onnxprune.autodiff import NoGradientError, gradient

RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(np.float32)


def model_of(body: str, opset: int = 18) -> ir.Model:
    text = f'<ir_version: 8, opset_import: ["" : {opset}]> agraph {body}'
    return ir.from_proto(onnx.parser.parse_model(text))


def test_split_changed_and_joined() -> None:
    model = model_of(
        """(float[5, 4] x, float[2, 4] w) => (float[k, 4] y, float[m, 4] e)
        <int64 two = {2}, int64 first = {0}, int64 last = {-1}> {
            parts = SplitToSequence <axis = 0> (x, two)
            product = SequenceAt (parts, last)
            more = SequenceInsert (parts, w, first)
            fewer = SequenceErase (more, last)
            e = SequenceAt (fewer, first)
            joined = ConcatFromSequence <axis = 0> (fewer)
            count = SequenceLength (fewer)
            n = Cast <to = 1> (count)
            scaled = Mul (joined, n)
            y = Concat <axis = 0> (scaled, product)
        }"""
    )
    check(model, {"x": normal(5, 4), "w": normal(2, 4)})


def test_stacked_and_single_indices() -> None:
    model = model_of(
        """(float[3, 4] x) => (float[4, 3] y) {
            rows = SplitToSequence <axis = 1, keepdims = 0> (x)
            y = ConcatFromSequence <axis = 0, new_axis = 1> (rows)
        }"""
    )
    check(model, {"x": normal(3, 4)})


def test_a_map_over_a_sequence() -> None:
    model = model_of(
        """(float[4] a, float[3] b) => (float[7] y) {
            s = SequenceConstruct (a, b)
            t = SequenceMap <body = f (float[k] i) => (float[k] o) { o = Tanh (i) }> (s)
            y = ConcatFromSequence <axis = 0> (t)
        }"""
    )
    check(model, {"a": normal(4), "b": normal(3)})


def test_an_element_that_the_data_chooses_is_an_error() -> None:
    model = model_of(
        """(float[4] a, float[4] b, int64 k) => (float[4] y) {
            s = SequenceConstruct (a, b)
            y = SequenceAt (s, k)
        }"""
    )
    with pytest.raises(NoGradientError, match="SequenceAt"):
        gradient(model, "y", ["a"])


def test_an_optional_value() -> None:
    model = model_of(
        """(float[4] a) => (float[4] y) {
            o = Optional (a)
            g = OptionalGetElement (o)
            y = Tanh (g)
        }"""
    )
    check(model, {"a": normal(4)})
