"""Accuracy at equal MACs, without recovery, by criterion.

    python benchmarks/criteria.py TOOL [TASK ...] [--macs .9 .8] [--criteria taylor ...] [--samples 200] [--score 500]

TOOL is a Python file that has the tasks: a dict `TASKS` of name to (model file, ...), `SHARED`, the folder that the
model files are in, and `load(task, part, n)`, which gives inputs and labels of the part `calib` or `score`. Every
criterion sees the same samples, and what goes is what `--target macs=X` chooses. One line of JSON for each
task, criterion and amount.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx_ir as ir

from onnxprune.dims import cut, trace
from onnxprune.graph import inline, load
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates, macs_left
from onnxprune.plan.search import search
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import make_dataset
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session

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
            for macs in given.macs:
                options = PruneOptions.of(
                    target=f"macs={macs}", criterion=criterion, data="given", recover="none"
                )
                start = time.perf_counter()
                (choice,) = search(tracing, candidates(tracing, options), options, data, Silent())
                seconds = time.perf_counter() - start
                counts = {dim: int(mask.sum()) for dim, mask in choice.keep.items()}
                left = macs_left(tracing, counts) / macs_left(tracing, {})
                found = {"task": task, "criterion": criterion, "macs": round(left, 4)}
                found["top1"] = _accuracy(cut(tracing, choice.keep), name, x, y)
                print(json.dumps({**found, "chosen_in_s": round(seconds, 1)}), flush=True)


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
