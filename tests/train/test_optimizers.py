from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.train import SGD, AdamW, Runner, StepOptions
from tests.train import reference
from tests.train.steps import ByHand, batches, digits, step_of

STEPS = 20

# On the gradients of real networks: the graph's optimizer, options, the reference's optimizer.
CASES = {
    "sgd": (
        SGD(0.9, weight_decay=1e-2),
        StepOptions(clip_norm=0.05),
        lambda weights: reference.SGD(weights, 0.9, False, 1e-2),
        0.05,
    ),
    "nesterov": (
        SGD(0.9, nesterov=True, weight_decay=1e-2),
        StepOptions(clip_value=1e-3),
        lambda weights: reference.SGD(weights, 0.9, True, 1e-2),
        0.05,
    ),
    "adamw": (
        AdamW(weight_decay=0.1),
        StepOptions(clip_norm=0.05, clip_value=1e-2),
        lambda weights: reference.AdamW(weights, 0.1),
        3e-3,
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_twenty_steps_follow_the_definitions_of_pytorch(name: str, case: str) -> None:
    optimizer, options, make, rate = CASES[case]
    model, data = digits(name)
    step = ByHand(step_of(model, data, optimizer, options=options))
    start = {k: step.state[k].astype(np.float64) for k in step.step.weights}
    expected = make(dict(start))
    fed = batches(data, model)
    clipped = 0
    for k in range(STEPS):
        now = rate * (1 + k % 3)  # a schedule
        _, found = step.run(fed[k % len(fed)], now)
        gradients = {n: g.astype(np.float64) for n, g in found.items()}
        before = gradients
        if options.clip_value is not None:
            gradients = reference.clip_value(gradients, options.clip_value)
        if options.clip_norm is not None:
            gradients = reference.clip_norm(gradients, options.clip_norm)
        clipped += any(not np.array_equal(before[n], gradients[n]) for n in before)
        expected.step(gradients, now)
    assert clipped > STEPS // 4, "the limits must have an effect for the test to mean anything"
    for weight, array in expected.weights.items():
        scale = np.abs(array).max()
        moved = np.abs(array - start[weight]).max()
        error = np.abs(step.state[weight] - array).max()
        assert error < 1e-5 * scale, weight
        assert error < 1e-3 * moved, weight


def test_penalties_are_in_the_loss_and_in_the_gradient() -> None:
    model, data = digits("lstm")
    plain = ByHand(step_of(model, data, SGD(0.0)))
    options = StepOptions(l1=1e-3, l2=1e-2)
    decayed = {"head.weight"}
    step = ByHand(step_of(model, data, SGD(0.0), options=options, decayed=decayed))
    (batch, *_) = batches(data, model)
    loss, gradients = plain.run(batch, 0.1)
    penalised, _ = step.run(batch, 0.1)
    w = step.step.start["head.weight"].astype(np.float64)
    assert penalised - loss == pytest.approx(
        1e-3 * np.abs(w).sum() + 0.5e-2 * (w**2).sum(), rel=1e-4
    )
    expected = w - 0.1 * (gradients["head.weight"] + 1e-3 * np.sign(w) + 1e-2 * w)
    np.testing.assert_allclose(step.state["head.weight"], expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(step.state["head.bias"], plain.state["head.bias"], atol=1e-7)


def test_the_average_follows_the_weights() -> None:
    model, data = digits("lstm")
    step = ByHand(step_of(model, data, SGD(0.9), options=StepOptions(ema=0.75)))
    average = step.state["head.weight"].astype(np.float64)
    for batch in batches(data, model)[:5]:
        step.run(batch, 0.1)
        average = 0.75 * average + 0.25 * step.state["head.weight"]
    kept = step.state[step.step.averages["head.weight"]]
    np.testing.assert_allclose(kept, average, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("optimizer", [SGD(0.9, True, 1e-2), AdamW(weight_decay=0.1)])
def test_a_weight_moves_in_proportion_to_its_scale(optimizer: SGD | AdamW) -> None:
    model, data = digits("resnet")
    (batch, *_) = batches(data, model)
    plain = ByHand(step_of(model, data, optimizer))
    random = np.random.default_rng(0)
    scales = {
        name: random.uniform(1, 9, (len(array), *[1] * (array.ndim - 1))).astype(np.float32)
        for name, array in plain.step.start.items()
        if name in plain.step.weights
    }
    scaled = ByHand(step_of(model, data, optimizer, scales=scales))
    plain.run(batch, 1e-2)
    scaled.run(batch, 1e-2)
    for name, scale in scales.items():
        start = plain.step.start[name].astype(np.float64)
        expected = start + scale * (plain.state[name] - start)
        np.testing.assert_allclose(scaled.state[name], expected, rtol=1e-5, atol=1e-5)
        assert (plain.state[name] != start).any()


@pytest.mark.parametrize("optimizer", [SGD(0.9, True, 1e-2), AdamW(weight_decay=0.1)])
def test_masked_zeros_stay_zero_bit_for_bit(optimizer: SGD | AdamW) -> None:
    model, data = digits("lstm")
    step = step_of(model, data, optimizer)
    name = "head.weight"
    mask = np.random.default_rng(0).random(step.start[name].shape) < 0.3
    options = StepOptions(clip_norm=1.0, l1=1e-3, l2=1e-3, ema=0.9)
    masked = step_of(model, data, optimizer, options=options, masks={name: mask})
    masked.start[name] *= mask
    masked.start[masked.averages[name]] = masked.start[name]
    by_hand = ByHand(masked)
    for batch in batches(data, model)[:4]:
        by_hand.run(batch, 0.1)
    for held in (name, masked.averages[name]):
        assert not by_hand.state[held][~mask].any()
        assert (by_hand.state[held][mask] != masked.start[held][mask]).mean() > 0.9


def test_buffers_that_stay_on_the_device_give_the_same_as_arrays_passed_around() -> None:
    model, data = digits("lstm")
    step = step_of(model, data, AdamW())
    runner, by_hand = Runner(step, threads=1), ByHand(step)
    for whole in batches(data, model)[:5]:
        batch = {name: array[:4] for name, array in whole.items()}  # too small for parts
        loss, _ = by_hand.run(batch, 1e-2)
        assert runner.run(batch, 1e-2) == loss
    found = runner.arrays({name: name for name in step.carried})
    assert found.keys() == by_hand.state.keys()
    for name, array in by_hand.state.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGD(momentum=1.0),
        lambda: SGD(momentum=0.0, nesterov=True),
        lambda: SGD(weight_decay=-1.0),
        lambda: AdamW(betas=(0.9, 1.0)),
        lambda: StepOptions(clip_norm=0.0),
        lambda: StepOptions(l1=float("nan")),
        lambda: StepOptions(ema=1.0),
    ],
)
def test_numbers_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(OptionError):
        make()  # type: ignore[operator]
