"""Running a step graph by hand, its gradients among the outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.graph import load
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import session
from onnxprune.train import Source, Step, objective, trainable, training_step

DIGITS = Path(__file__).resolve().parent.parent.parent / "models"
BATCH = 16


def digits(name: str, file: str = "digits_calib") -> tuple[ir.Model, Dataset]:
    model = load(DIGITS / f"digits_{name}.onnx")
    return model, read_data(DIGITS / f"{file}.npz", model)


def batches(data: Dataset, model: ir.Model) -> list[dict[str, np.ndarray]]:
    source = Source(data, objective(model, data))
    return [source.feed(np.arange(k, k + BATCH)) for k in range(0, len(data) - BATCH + 1, BATCH)]


def step_of(model: ir.Model, data: Dataset, optimizer: Any, **options: Any) -> Step:
    goal = objective(model, data)
    feeds = {name: array[:2] for name, array in data.inputs.items()}
    options.setdefault("trained", trainable(model))
    return training_step(model, goal.loss, optimizer, feeds=feeds, **options)


class ByHand:
    """A step run on numpy arrays, which also tells the gradients it found."""

    def __init__(self, step: Step) -> None:
        values = {v.name: v for node in step.model.graph for v in node.outputs}
        self.gradients = [f"{name}.grad" for name in step.weights]
        step.model.graph.outputs.extend(values[name] for name in self.gradients)
        self.step, self.state, self.count = step, dict(step.start), 0
        self.session = session(step.model, threads=1)
        self.inputs = {value.name for value in self.session.get_inputs()}

    def run(self, batch: dict[str, np.ndarray], rate: float) -> tuple[float, dict[str, np.ndarray]]:
        step = self.step
        self.count += 1
        feed = {
            **batch,
            **self.state,
            step.rate: np.array(rate, np.float32),
            step.step: np.array(self.count, np.int64),
        }
        names = [step.loss, *step.carried.values(), *self.gradients]
        loss, *rest = self.session.run(names, {k: v for k, v in feed.items() if k in self.inputs})
        self.state = dict(zip(step.carried, rest, strict=False))
        found = rest[len(step.carried) :]
        return float(loss), dict(zip(step.weights, found, strict=True))
