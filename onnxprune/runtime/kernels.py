"""How long each kernel of a model runs, by onnxruntime's own profiler.

What a profiler sees is the model as onnxruntime runs it: operators fused, weights packed, layouts changed. So it tells
what an operator really costs, without the overhead of a run and without the copies at a model's border.

Only kernels of the CPU are waited for when their time is taken. On other devices a run is timed as a whole, and is one
kernel without a name.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune.runtime.providers import resolve
from onnxprune.runtime.sessions import run, session

__all__ = ["WHOLE", "Kernel", "kernels"]

WHOLE = ""
"""The op of the one kernel that stands for a whole run."""
WARMUP = 2
KERNEL = "_kernel_time"


@dataclass(frozen=True)
class Kernel:
    """One node of the model as onnxruntime runs it.

    Attributes:
        op: Its op type there, such as `FusedConv`.
        seconds: Time of one run: the mean of the faster half, for nothing makes a kernel faster by chance.
    """

    op: str
    seconds: float


def kernels(
    model: ir.Model,
    feed: Mapping[str, np.ndarray],
    providers: Sequence[str] = ("cpu",),
    *,
    seconds: float = 0.2,
    least: int = 10,
    most: int = 200,
) -> list[Kernel]:
    """The kernels of a model, in the order in which they run.

    Args:
        model: The model.
        feed: Input name to array.
        providers: onnxruntime providers by name.
        seconds: Time after which no new run begins.
        least: Runs that are timed in any case.
        most: Runs after which it ends early.

    Raises:
        ModelError: onnxruntime refuses or does not run the model.
    """
    if resolve(providers)[0][0] != "CPUExecutionProvider":
        return [Kernel(WHOLE, _wall(model, feed, providers, seconds, least, most))]
    with tempfile.TemporaryDirectory(prefix="onnxprune-") as folder:
        made = session(model, providers, profile=Path(folder) / "profile")
        end, runs = time.perf_counter() + seconds, 0
        while runs < least + WARMUP or (time.perf_counter() < end and runs < most):
            run(made, feed)
            runs += 1
        events = json.loads(Path(made.end_profiling()).read_bytes())
    ops: dict[tuple[str, str], str] = {}
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            key = (event["name"], event["args"].get("node_index", ""))
            ops[key] = event["args"]["op_name"]
            times.setdefault(key, []).append(event["dur"] * 1e-6)
    return [Kernel(op, _per_run(times[key], runs)) for key, op in ops.items()]


def faster_half(times: Sequence[float] | np.ndarray) -> float:
    """The mean of the faster half of some times."""
    return float(np.sort(np.asarray(times))[: max(1, (len(times) + 1) // 2)].mean())


def _per_run(times: Sequence[float], runs: int) -> float:
    """Time in one run of a kernel that may have run several times in each (in a loop)."""
    each = max(1, len(times) // runs)
    return faster_half(times[WARMUP * each :]) * len(times) / runs


def _wall(
    model: ir.Model,
    feed: Mapping[str, np.ndarray],
    providers: Sequence[str],
    seconds: float,
    least: int,
    most: int,
) -> float:
    made = session(model, providers)
    end, times = time.perf_counter() + seconds, list[float]()
    while len(times) < least + WARMUP or (time.perf_counter() < end and len(times) < most):
        start = time.perf_counter()
        run(made, feed)
        times.append(time.perf_counter() - start)
    return faster_half(times[WARMUP:])
