"""Programs that take turns, each in a process of its own: neither's idle threads nor memory count for the others."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

TURN = 0.5
"""Seconds of a turn, at least."""
FEWEST = 2
"""Steps of a turn, at least."""


class Side:
    """A process that takes steps when it is told to, and how long they took.

    Args:
        script: The Python file that runs `serve`.
        arguments: Its command line.
    """

    def __init__(self, script: str, arguments: Sequence[str]) -> None:
        self._process: Any = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.peak_mb = 0.0
        self._take(1)
        self.steps = max(FEWEST, round(TURN / self._take(FEWEST)))

    def turn(self) -> float:
        """Seconds of a step, over a turn of some."""
        return self._take(self.steps)

    def _take(self, steps: int) -> float:
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        seconds, self.peak_mb = map(float, self._process.stdout.readline().split())
        return seconds / steps

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


def in_turns(sides: Sequence[Side], rounds: int) -> np.ndarray[Any, Any]:
    """Seconds of a step of each side, shape (sides, rounds); the processes end."""
    times = [[side.turn() for side in sides] for _ in range(rounds)]
    for side in sides:
        side.close()
    return np.array(times).T


def serve(make: Callable[[], Callable[[], object]]) -> None:
    """Takes as many steps as each line of input says, and prints their seconds and the growth of the process in MB.

    Args:
        make: Makes what a step calls. What the process grows by counts from before it; import what it needs first.
    """
    before = _resident_kb()
    step = make()
    for line in sys.stdin:
        began = time.perf_counter()
        for _ in range(int(line)):
            step()
        seconds = time.perf_counter() - began
        print(seconds, (_peak_kb() - before) / 1024, flush=True)


def _resident_kb() -> int:
    """What the process holds now (its peak so far would include the parent's, before exec)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
