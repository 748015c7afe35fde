"""Group lasso: the operator, and that what it finds is cut at no loss."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnx_ir as ir
import pytest

from onnxprune.dims import cut, trace
from onnxprune.errors import NothingToPruneError, OptionError
from onnxprune.graph import weights
from onnxprune.options import PruneOptions
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from onnxprune.steps.dead import without_dead
from onnxprune.train import SGD, Runner, StepOptions, TrainOptions, fit, trainable
from onnxprune.train.lasso import groups_of
from tests.train.steps import batches, digits, step_of


def arrays(model: ir.Model) -> dict[str, np.ndarray]:
    return {weight.name: weight.array() for weight in weights(model)}


def test_groups_hold_all_that_a_channel_is() -> None:
    model, data = digits("lstm")
    chosen = trainable(model)
    groups = groups_of(model, data.shapes_of_one, {weight.name for weight in chosen})
    sizes = {weight.name: weight.array().size for weight in chosen}
    for group in groups:
        runs = [(m.weight, len(m.places), int((m.places >= 0).sum())) for m in group.members]
        assert group.count.sum() == sum(sizes[name] // n * own for name, n, own in runs)
        assert (group.count == group.count[0]).all()


def test_a_step_shrinks_channels_as_wholes() -> None:
    model, data = digits("resnet")
    chosen = trainable(model)
    groups = groups_of(model, data.shapes_of_one, {weight.name for weight in chosen})[:1]
    (feed, *_), rate, strength = batches(data, model), 0.1, 0.05
    results = []
    for options, used in ((None, ()), (StepOptions(group_lasso=strength), groups)):
        runner = Runner(step_of(model, data, SGD(0.0), options=options, groups=used), threads=1)
        runner.run(feed, rate)
        results.append(runner.arrays({name: name for name in runner.step.weights}))
    plain, shrunk = results
    (group,) = groups
    norms = np.zeros(group.size)
    for each in group.members:
        moved = np.moveaxis(plain[each.weight].astype(np.float64), each.axis, 0)
        np.add.at(norms, each.places, (moved.reshape(len(moved), -1) ** 2).sum(1))
    factor = np.maximum(1 - rate * strength * np.sqrt(group.count) / np.sqrt(norms), 0)
    assert (factor > 0).sum() > 0
    expected = dict(plain)
    for each in group.members:
        shape = [-1 if k == each.axis else 1 for k in range(plain[each.weight].ndim)]
        expected[each.weight] = expected[each.weight] * factor[each.places].reshape(shape)
    for name, array in expected.items():
        np.testing.assert_allclose(shrunk[name], array, rtol=1e-4, atol=1e-6)


PLANTED = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 4] x) => (float[n, 2] y)
{
    h = MatMul(x, first)
    i = Add(h, bias)
    j = Relu(i)
    y = MatMul(j, last)
}
"""


def planted() -> tuple[ir.Model, Dataset]:
    """Twelve hidden units, and data that two of them are enough for."""
    random = np.random.default_rng(0)
    model = onnx.parser.parse_model(PLANTED)
    for name, shape in {"first": (4, 12), "bias": (12,), "last": (12, 2)}.items():
        array = random.normal(0, 0.4, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    x = random.normal(size=(256, 4)).astype(np.float32)
    y = np.maximum(x[:, :2], 0) @ np.array([[1, -1], [1, 1]], np.float32)
    return ir.from_proto(model), Dataset({"x": x}, y)


def test_channels_that_end_at_zero_cut_away_with_no_loss() -> None:
    model, data = planted()
    options = TrainOptions(epochs=60, lr=0.05, optimizer="sgd", group_lasso=0.1, threads=1)
    done = fit(model, data, None, options)
    assert done.trained.best.accuracy is not None
    assert done.trained.best.accuracy > 0.9
    before, after = (
        without_dead(trace(each, measure(each, data.shapes_of_one)), PruneOptions(fold=True))
        for each in (model, done.model)
    )
    assert not before.keep
    assert sum(int((~mask).sum()) for mask in after.keep.values()) == 10
    small, feed = cut(after.tracing, after.keep), data.feed(slice(0, 64))
    for mine, theirs in zip(run(session(small), feed), run(session(done.model), feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_channels_before_live_statistics_go_too() -> None:
    model, data = digits("resnet")
    options = TrainOptions(
        epochs=120, lr=0.05, optimizer="sgd", group_lasso=0.005, threads=1, augment=()
    )
    done = fit(model, data, None, options)
    assert done.trained.best.accuracy is not None
    assert done.trained.best.accuracy >= 0.9
    dead = without_dead(
        trace(done.model, measure(done.model, data.shapes_of_one)), PruneOptions(fold=True)
    )
    assert sum(int((~mask).sum()) for mask in dead.keep.values()) > 64
    small, feed = cut(dead.tracing, dead.keep), data.feed(slice(0, 64))
    for mine, theirs in zip(run(session(small), feed), run(session(done.model), feed), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)


def test_an_average_has_no_zeros_and_nothing_to_cut_no_groups() -> None:
    with pytest.raises(OptionError, match="goes without ema"):
        TrainOptions(ema=0.9, group_lasso=0.1)
    with pytest.raises(OptionError, match="group-lasso must be"):
        TrainOptions(group_lasso=-1.0)
    model, data = digits("resnet")
    with pytest.raises(NothingToPruneError, match="finds no channels"):
        groups_of(model, data.shapes_of_one, set())
    assert run(session(model), data.feed(slice(0, 2)))
