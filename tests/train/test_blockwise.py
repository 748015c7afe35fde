"""Block by block."""

from __future__ import annotations

from dataclasses import replace as with_

import numpy as np
import onnx_ir as ir

from onnxprune.dims import cut, trace
from onnxprune.graph import inline, weights
from onnxprune.runtime.dataset import hold_aside
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from onnxprune.steps.training import kept_places
from onnxprune.train import TrainOptions, fit
from onnxprune.train.blockwise import distil_blocks
from tests.train.steps import digits
from tests.train.test_finetune import damaged

OPTIONS = TrainOptions(epochs=1, block_epochs=6, threads=1)


def distance(model: ir.Model, original: ir.Model, feed: dict[str, np.ndarray]) -> float:
    (mine,), (theirs,) = run(session(model), feed), run(session(original), feed)
    return float(((mine - theirs) ** 2).mean() / theirs.var())


def test_blocks_bring_a_network_back_without_labels() -> None:
    model, data = digits("resnet")
    _, test = digits("resnet", "digits")
    data, pruned = with_(data, labels=None), damaged(model, 0.7)
    before = {weight.name: weight.array().copy() for weight in weights(pruned)}
    found, blocks = distil_blocks(pruned, model, *hold_aside(data, 0.1, 0), OPTIONS)
    feed = test.feed(slice(0, 200))
    assert distance(found, model, feed) < 0.5 * distance(pruned, model, feed)
    assert len(blocks) > 1
    assert all(block.after <= block.before for block in blocks)
    for weight in weights(pruned):
        np.testing.assert_array_equal(weight.array(), before[weight.name])


def test_what_equals_the_original_is_left_alone() -> None:
    model, data = digits("resnet")
    found, blocks = distil_blocks(model, model, *hold_aside(data, 0.1, 0), OPTIONS)
    assert blocks == []
    for mine, theirs in zip(weights(found), weights(model), strict=False):
        np.testing.assert_array_equal(mine.array(), theirs.array())


def test_where_channels_went_the_others_are_compared() -> None:
    model, data = digits("resnet")
    model = inline(model)
    tracing = trace(model, measure(model, data.shapes_of_one))
    keep = {}
    for info in tracing.free():
        keep[info.dim] = np.arange(info.size) % 4 > 0
    pruned, kept = cut(tracing, keep), kept_places(tracing, keep)
    parts = hold_aside(with_(data, labels=None), 0.1, 0)
    _, few = distil_blocks(pruned, model, *parts, OPTIONS)
    found, blocks = distil_blocks(pruned, model, *parts, OPTIONS, kept=kept)
    assert len(blocks) > len(few)
    feed = digits("resnet", "digits")[1].feed(slice(0, 200))
    assert distance(found, model, feed) < 0.5 * distance(pruned, model, feed)


def test_training_without_labels_begins_with_the_blocks() -> None:
    model, data = digits("resnet")
    pruned, data = damaged(model, 0.7), data.take(60)
    assert fit(pruned, with_(data, labels=None), model, OPTIONS).blocks
    assert not fit(pruned, data, model, TrainOptions(epochs=1, threads=1)).blocks
    off = TrainOptions(epochs=1, block_epochs=0, threads=1)
    assert not fit(pruned, with_(data, labels=None), model, off).blocks


def test_values_between_blocks_can_be_followed_too() -> None:
    model, data = digits("resnet")
    data = with_(data.take(60), labels=None)
    options = TrainOptions(epochs=2, block_epochs=0, features=1.0, threads=1)
    found = fit(damaged(model, 0.7), data, model, options)
    assert "of its values" in found.objective
    assert found.trained.best.loss < found.trained.start.loss
    assert fit(model, data, model, options).trained.start.loss < 1e-6
