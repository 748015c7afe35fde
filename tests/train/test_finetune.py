from __future__ import annotations

from dataclasses import replace as with_
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.errors import DataError, ModelError, NothingToPruneError, OptionError
from onnxprune.graph import clone, replace, save, weights
from onnxprune.runtime.dataset import Dataset, hold_aside
from onnxprune.runtime.sessions import session
from onnxprune.train import Epoch, TrainOptions, finetune, fit, trainable
from onnxprune.train.loop import Evaluated
from onnxprune.validation.accuracy import accuracy
from tests.loaded import loaded
from tests.train.steps import digits


def damaged(model: ir.Model, share: float) -> ir.Model:
    """The smallest weights of every convolution and matrix set to zero."""
    copy = clone(model)
    for weight in trainable(copy):
        if len(weight.shape) > 1:
            array = weight.array()
            limit = np.quantile(np.abs(array), share)
            replace(weight, np.where(np.abs(array) <= limit, 0, array).astype(np.float32))
    return copy


def top1(model: ir.Model) -> float:
    _, test = digits("resnet", "digits")
    return accuracy(session(model, threads=1), test).value


@pytest.mark.parametrize("labels", [True, False])
def test_a_pruned_network_recovers_and_its_zeros_stay(labels: bool) -> None:
    model, data = digits("resnet")
    pruned = damaged(model, 0.8)
    before = top1(pruned)
    used = data if labels else with_(data, labels=None)
    options = TrainOptions(epochs=6, threads=1, lr=5e-3, augment=())
    found = fit(pruned, used, None if labels else model, options)
    assert before < 0.9
    assert top1(found.model) > max(before + 0.05, 0.93)
    losses = [epoch.loss for epoch in found.trained.epochs]
    assert losses[-1] < 0.5 * losses[0]
    assert found.trained.best.beats(found.trained.start)
    after = {weight.name: weight.array() for weight in weights(found.model)}
    for weight in trainable(pruned):
        if len(weight.shape) > 1:
            zeros = weight.array() == 0
            assert zeros.mean() > 0.7
            assert not after[weight.name][zeros].any()
            assert (after[weight.name] != weight.array()).any()


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    model, data = digits("lstm")
    results = [
        finetune(damaged(model, 0.5), data.take(64), epochs=2, threads=1, seed=seed)
        for seed in (1, 1, 2)
    ]
    files = [tmp_path / f"{k}.onnx" for k in range(3)]
    for found, file in zip(results, files, strict=True):
        save(found, file)
    first, second, third = (file.read_bytes() for file in files)
    assert first == second
    assert first != third


def test_the_model_given_is_left_as_it_is() -> None:
    model, data = digits("lstm")
    before = {weight.name: weight.array().copy() for weight in weights(model)}
    finetune(model, data.take(40), epochs=1, threads=1)
    for weight in weights(model):
        np.testing.assert_array_equal(weight.array(), before[weight.name])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_divergence_stops_and_keeps_what_is_finite(optimizer: Literal["sgd", "adamw"]) -> None:
    model, data = digits("lstm")
    options = TrainOptions(epochs=3, lr=1e6, optimizer=optimizer, warmup=0, threads=1)
    found = fit(model, data.take(80), None, options)
    assert found.trained.diverged
    assert found.trained.best_epoch == 0
    assert "diverged" in found.trained.stopped
    assert "--lr" in found.trained.stopped
    assert all(
        np.isfinite(w.array()).all() for w in weights(found.model) if w.dtype.is_floating_point()
    )


def test_a_rate_that_does_harm_at_once_is_lowered_unless_it_was_chosen() -> None:
    """A network that is nearly right: the default rate undoes it."""
    model, data = digits("lstm")
    data = Dataset(data.inputs)
    common = {"epochs": 3, "block_epochs": 0, "augment": (), "relative": False, "threads": 1}
    small = clone(model)
    head = next(w for w in weights(small) if w.name == "head.weight")
    replace(head, head.array() * np.float32(1.005))
    found = fit(small, data, model, TrainOptions(**common))
    assert found.trained.lowered > 0
    assert found.trained.rate == pytest.approx(1e-3 / 4**found.trained.lowered)
    assert found.trained.best.loss < found.trained.start.loss
    assert len(found.trained.epochs) == 3
    stubborn = fit(small, data, model, TrainOptions(**common, lr=1e-3))
    assert stubborn.trained.lowered == 0
    assert stubborn.trained.epochs[0].evaluated.loss > 2 * stubborn.trained.start.loss


def test_nan_in_a_sample_stops_and_keeps_what_is_finite() -> None:
    model, data = digits("lstm")
    images = data.inputs["image"].copy()
    broken = Dataset({"image": images}, data.labels)
    options = TrainOptions(epochs=2, threads=1, held_aside=0.1)
    aside = hold_aside(broken, 0.1, 0)[1].inputs["image"]
    hurt = next(k for k in range(len(images)) if not (aside == images[k]).all((1, 2, 3)).any())
    images[hurt] = np.nan
    found = fit(model, broken, None, options)
    assert found.trained.diverged
    assert found.trained.best_epoch == 0
    for weight in weights(model):
        after = next(w for w in weights(found.model) if w.name == weight.name)
        np.testing.assert_array_equal(after.array(), weight.array())


def test_a_model_that_is_not_finite_is_refused() -> None:
    model, data = digits("lstm")
    bad = clone(model)
    (head,) = [weight for weight in weights(bad) if weight.name == "head.bias"]
    replace(head, np.full(10, np.inf, np.float32))
    with pytest.raises(ModelError, match="cannot start"):
        finetune(bad, data.take(40), epochs=1, threads=1)


def test_an_interrupt_keeps_the_best_so_far() -> None:
    model, data = digits("lstm")

    def interrupt(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    pruned = damaged(model, 0.7)
    found = fit(pruned, data, None, TrainOptions(epochs=9, threads=1), on_epoch=interrupt)
    assert found.trained.interrupted
    assert "epoch 3 of 9" in found.trained.stopped
    assert found.trained.best_epoch == 1
    assert found.trained.best.beats(found.trained.start)


def test_averages_are_the_result_where_they_are_kept() -> None:
    model, data = digits("lstm")
    found = fit(damaged(model, 0.7), data, None, TrainOptions(epochs=2, threads=1, ema=0.5))
    held = found.trained
    assert held.best_epoch > 0
    assert set(held.weights) == {weight.name for weight in trainable(model)}
    values = {weight.name: weight.array() for weight in weights(found.model)}
    np.testing.assert_array_equal(values["head.weight"], held.weights["head.weight"])


def test_what_cannot_be_trained_is_said() -> None:
    model, data = digits("lstm")
    with pytest.raises(DataError, match="labels in the data, or the original"):
        finetune(model, with_(data, labels=None), epochs=1)
    with pytest.raises(OptionError, match="no float constant"):
        finetune(model, data, epochs=1, include=("nothing.*",))
    with pytest.raises(NothingToPruneError):
        finetune(model, data, epochs=1, exclude=("*",))
    with pytest.raises(DataError, match="too few"):
        finetune(model, data.take(1), epochs=1)
    with pytest.raises(OptionError, match="lr"):
        TrainOptions(lr=0.0)


def test_few_samples_without_labels_are_seen_often() -> None:
    few, many = (TrainOptions().settled(False, count, False) for count in (200, 4000))
    assert (few.epochs, few.batch_size) == (50, 16)
    assert (many.epochs, many.batch_size) == (10, 64)
    labelled = TrainOptions().settled(True, 200, False)
    assert (labelled.epochs, labelled.batch_size) == (10, 32)
    assert TrainOptions(epochs=3, batch_size=8).settled(False, 200, False).passes() == 3


def test_without_labels_states_are_compared_on_moved_copies_too() -> None:
    model, data = digits("resnet")
    data = Dataset(data.take(40).inputs)
    common = {"epochs": 1, "block_epochs": 0, "threads": 1}
    found = fit(damaged(model, 0.7), data, model, TrainOptions(**common))
    assert found.trained.best.samples == 3 * 4
    plain = fit(damaged(model, 0.7), data, model, TrainOptions(**common, augment=()))
    assert plain.trained.best.samples == 4


@pytest.mark.parametrize(
    ("accuracies", "losses", "samples", "first"),
    [
        ((0.90, 0.88), (0.5, 0.4), 2000, True),
        ((0.90, 0.88), (0.5, 0.4), 100, False),
        ((0.90, 0.90), (0.4, 0.5), 2000, True),
        ((None, None), (0.4, 0.5), 2000, True),
    ],
    ids=["samples that tell", "samples that do not", "the same", "no labels"],
)
def test_states_are_compared_by_loss_where_accuracies_cannot_be_told_apart(
    accuracies: tuple[float | None, float | None],
    losses: tuple[float, float],
    samples: int,
    first: bool,
) -> None:
    one, other = (
        Evaluated(loss, "top-1", accuracy, samples)
        for accuracy, loss in zip(accuracies, losses, strict=True)
    )
    assert one.beats(other) == first
    assert other.beats(one) != first


def test_a_teacher_of_other_sizes_is_none() -> None:
    text = "(float[N,6] x) => (float[N,K] y) { y = MatMul(x, w) }"
    data = Dataset({"x": np.zeros((8, 6), np.float32)})
    with pytest.raises(DataError, match=r"the output 'y' is \(1, 5\) of one of them, \(1, 3\)"):
        fit(loaded(text, w=(6, 3)), data, loaded(text, w=(6, 5)), TrainOptions(epochs=1))
