from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.runtime.dataset import Dataset
from onnxprune.train.harmless import harmless, recognised
from tests.train.steps import digits


def brightest(rows: bool) -> ir.Model:
    """Which of two halves of an image is the brighter: the upper or the lower, or the left or the right."""
    axes, starts = (2 if rows else 3), [0, 4]
    halves = "\n".join(
        f"""s{k} = Constant <value_ints = [{start}]> ()
            e{k} = Constant <value_ints = [{start + 4}]> ()
            h{k} = Slice (x, s{k}, e{k}, a)
            m{k} = ReduceSum <keepdims = 0> (h{k}, all)
            c{k} = Unsqueeze (m{k}, one)"""
        for k, start in enumerate(starts)
    )
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,1,8,8] x) => (float[N,2] y) {{
            a = Constant <value_ints = [{axes}]> ()
            all = Constant <value_ints = [1, 2, 3]> ()
            one = Constant <value_ints = [1]> ()
            {halves}
            y = Concat <axis = 1> (c0, c1)
        }}"""
    )


@pytest.mark.parametrize(("rows", "expected"), [(True, ("flip", "crop")), (False, ("crop",))])
def test_a_way_is_harmless_where_answers_stay_right(rows: bool, expected: tuple[str, ...]) -> None:
    images = np.zeros((128, 1, 8, 8), np.float32)
    labels = np.arange(128) % 2
    for image, label in zip(images, labels, strict=True):
        half = slice(4 * label, 4 * label + 4)
        image[(0, half) if rows else (0, slice(None), half)] = 1
    data = Dataset({"x": images}, labels=labels)
    assert harmless(brightest(rows), data) == expected
    assert harmless(brightest(rows), data.take(20)) == ()


def test_digits_are_not_to_be_mirrored() -> None:
    model, data = digits("resnet")
    assert "flip" not in harmless(model, data)
    assert recognised(model, data, ()) == 1
    assert recognised(model, data, ("crop",)) > 0.9
    assert recognised(model, data, ("flip",)) < 0.8


def test_numbers_as_labels_say_nothing() -> None:
    images = np.zeros((128, 1, 8, 8), np.float32)
    data = Dataset({"x": images}, labels=np.zeros((128, 2), np.float32))
    assert harmless(brightest(rows=True), data) == ()
