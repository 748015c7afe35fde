"""Accuracy at equal MACs, without recovery, by criterion.

    python benchmarks/criteria.py TOOL [TASK ...] [--macs .9 .8] [--criteria taylor ...] [--samples 200] [--score 500]

TOOL is a Python file that has the tasks: a dict `TASKS` of name to (model file, ...), `SHARED`, the folder that the
model files are in, and `load(task, part, n)`, which gives inputs and labels of the part `calib` or `score`. Every
criterion sees the same samples, and the widths are what `--target macs=X`
chooses. One line of JSON for each task, criterion and amount.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir

from onnxprune.dims import Dim, Tracing, cut, trace
from onnxprune.graph import inline, load
from onnxprune.options import PruneOptions
from onnxprune.plan.budget import macs_cost
from onnxprune.plan.channels import candidates, channel_scores, scored_weights, step_of
from onnxprune.plan.widths import shrink_to
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import Dataset, make_dataset
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from onnxprune.sampling import element_context, objective, sums_of
from onnxprune.scores import Context, get_criterion
from onnxprune.scores.obs import Consumers

CRITERIA = ("random", "magnitude", "gradient", "fisher", "hessian", "taylor")


def main() -> None:
    """Runs the tasks named, or all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", type=Path)
    parser.add_argument("tasks", nargs="*")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.9, 0.8])
    parser.add_argument("--criteria", nargs="+", choices=CRITERIA, default=CRITERIA)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--score", type=int)
    given = parser.parse_args()
    tool = _module(given.tool)
    for task in given.tasks or tool.TASKS:
        model = inline(load(Path(tool.SHARED) / tool.TASKS[task][0]))
        tracing = trace(model, measure(model))
        x, y = tool.load(task, "calib", given.samples)
        (name,) = (v.name or "" for v in model.graph.inputs if not v.is_initializer())
        data = make_dataset({name: x}, model, y)
        x, y = tool.load(task, "score", given.score)
        print(json.dumps({"task": task, "original": _accuracy(model, name, x, y)}), flush=True)
        for criterion in given.criteria:
            make = _losses(tracing, criterion, data)
            for macs in given.macs:
                start = time.perf_counter()
                model, left = _pruned(tracing, make(), macs)
                seconds = time.perf_counter() - start
                found = {"task": task, "criterion": criterion, "macs": round(left, 4)}
                found["top1"] = _accuracy(model, name, x, y)
                print(json.dumps({**found, "chosen_in_s": round(seconds, 1)}), flush=True)


def _losses(tracing: Tracing, criterion: str, data: Dataset) -> Callable[[], Consumers]:
    """What makes the losses of all indices anew, for one amount after the other."""
    options = PruneOptions(criterion=criterion, data=Path("given"), recover="none")
    infos = candidates(tracing, options)
    chosen, dims = get_criterion(criterion), [info.dim for info in infos]
    if chosen.signed:
        goal = objective(tracing.model, data, 0, kind=chosen.loss)
        return lambda: sums_of(tracing, dims, goal, data, Silent())
    context = Context()
    if chosen.statistic:
        weights = scored_weights(tracing, infos)
        context = element_context(tracing.model, weights, options, data, Silent())
    squares = {d: s**2 for d, s in channel_scores(tracing, infos, chosen, context).items()}
    shares: dict[Dim, np.ndarray] = {d: s / max(float(s.sum()), 1e-30) for d, s in squares.items()}
    return lambda: Consumers([], shares)


def _pruned(tracing: Tracing, consumers: Consumers, macs: float) -> tuple[ir.Model, float]:
    options = PruneOptions.of(target=f"macs={macs}")
    infos = candidates(tracing, options)
    steps = {info.dim: step_of(info, options) for info in infos}
    left = shrink_to(consumers, macs_cost(tracing), macs, steps, dict.fromkeys(steps, 1))
    return cut(tracing, consumers.keep()), left


def _accuracy(model: ir.Model, name: str, x: np.ndarray, y: np.ndarray) -> float:
    made = session(model)
    size = made.get_inputs()[0].shape[0]
    step = size if isinstance(size, int) else 50
    right = 0
    for k in range(0, len(x) - len(x) % step if isinstance(size, int) else len(x), step):
        part = run(made, {name: x[k : k + step]})[0]
        right += int((part.reshape(len(part), -1).argmax(1) == y[k : k + step]).sum())
    return round(right / len(x), 4)


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
