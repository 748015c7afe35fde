"""Steps taken in parts of a batch, and as wholes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.parts import MeanRunner
from onnxprune.train import (
    SGD,
    AdamW,
    Optimizer,
    Runner,
    Source,
    StepOptions,
    TrainOptions,
    fit,
    live,
    objective,
)
from onnxprune.train.halves import halves
from onnxprune.train.step import Step
from tests.loaded import loaded
from tests.train.steps import digits, step_of


def trained(step: Step, data: Dataset, batch: int, divides: bool) -> dict[str, np.ndarray]:
    runner = Runner(step, threads=2)
    runner.divides = runner.divides and divides
    source = Source(data, objective(digits("resnet")[0], data))
    losses = [
        runner.run(source.feed(np.arange(k, k + batch)), 0.05) for k in range(0, 3 * batch, batch)
    ]
    return {**runner.arrays({name: name for name in step.start}), "losses": np.array(losses)}


@pytest.mark.parametrize("batch", [6, 8, 37])
@pytest.mark.parametrize("optimizer", [SGD(0.9, weight_decay=1e-4), AdamW(epsilon=1e-4)])
def test_a_batch_in_parts_takes_the_step_of_the_whole(optimizer: Optimizer, batch: int) -> None:
    model, data = digits("vit")
    step = step_of(model, data, optimizer, options=StepOptions(clip_norm=0.5, l1=1e-4))
    expected, found = (trained(step, data, batch, divides) for divides in (False, True))
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5, err_msg=name)


def test_only_the_first_half_sees_the_batch() -> None:
    model, data = digits("resnet")
    mode = live(model, feeds={name: array[:8] for name, array in data.inputs.items()})
    step = step_of(mode.model, data, SGD(0.9), running=mode.running)
    first, second = halves(step)
    fed = {value.name for value in step.model.graph.inputs} - {*step.start, step.rate, step.step}
    assert fed <= {value.name for value in first.graph.inputs}
    assert {value.name for value in second.graph.inputs} >= {*step.means, step.rate}
    assert not fed & {value.name for value in second.graph.inputs}
    assert [value.name for value in first.graph.outputs] == list(step.means)
    assert len(step.means) == 1 + len(step.weights) + len(mode.running)


def test_statistics_of_a_large_batch_are_means_of_those_of_its_parts() -> None:
    model, data = digits("resnet")
    mode = live(model, feeds={name: array[:8] for name, array in data.inputs.items()})
    step = step_of(mode.model, data, SGD(0.9), running=mode.running)
    source = Source(data, objective(model, data))

    def after(start: int, stop: int, divides: bool = True) -> dict[str, np.ndarray]:
        """The running statistics after a step at a rate of zero, and the loss."""
        runner = Runner(step, threads=2)
        runner.divides = divides
        loss = runner.run(source.feed(np.arange(start, stop)), 0.0)
        return {**runner.arrays({name: name for name in mode.running}), "loss": np.array(loss)}

    whole, large, first, second = after(0, 64, False), after(0, 64), after(0, 32), after(32, 64)
    for name, found in large.items():
        expected = (first[name] + second[name]) / 2
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6, err_msg=name)
    assert not all(np.allclose(whole[name], found, 1e-4, 1e-5) for name, found in large.items())
    alone = after(0, 32, False)
    for name, found in first.items():
        np.testing.assert_array_equal(found, alone[name], err_msg=name)


@pytest.mark.parametrize(("scores", "divided"), [("Identity(h)", True), ("Sub(h, mean)", False)])
def test_samples_that_see_each_other_stay_together(
    scores: str, divided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    model = loaded(
        f"""(float[N,6] x) => (float[N,4] y) {{
            h = MatMul(x, w)
            mean = ReduceMean<axes=[0]>(h)
            y = {scores}
        }}""",
        w=(6, 4),
    )
    data = Dataset({"x": random.normal(size=(64, 6)).astype(np.float32)}, random.integers(0, 4, 64))
    used = list[int]()
    run = MeanRunner.run

    def counted(self: MeanRunner, batch: Any, slices: Any, fixed: Any = None) -> Any:
        used.append(len(slices))
        return run(self, batch, slices, fixed)

    monkeypatch.setattr(MeanRunner, "run", counted)
    done = fit(model, data, None, TrainOptions(epochs=1, batch_size=16, optimizer="adamw"))
    assert done.trained.epochs
    assert bool(used) == divided
