"""Progress of long work, shown on a terminal and nowhere else.

with progress.step("running the data set", total=len(dataset)) as advance:
    for batch in batches:
        ...
        advance(len(batch))
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Advance", "Prefixed", "Progress", "Silent", "Terminal", "on_stderr"]

Advance = Callable[[int], None]


class Progress(Protocol):
    """What long work reports to."""

    def step(self, label: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """Opens a step of `total` units (None: unknown); call what it gives with the units done since the last call."""
        ...


class Silent:
    """Shows nothing."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """A step that nobody sees."""
        yield lambda _units: None


class Terminal:
    """Bars on stderr, gone when their step is done."""

    @contextmanager
    def step(self, label: str, total: int | None = None) -> Iterator[Advance]:
        """A bar, or a spinner where the total is unknown."""
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        known = () if total is None else (BarColumn(), TimeRemainingColumn())
        columns = (SpinnerColumn(), TextColumn("{task.description}"), *known)
        with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(label, total=total)
            yield lambda units: bars.advance(task, units)


class Prefixed:
    """The steps of another, their labels behind a few words."""

    def __init__(self, inner: Progress, prefix: str) -> None:
        self._inner, self._prefix = inner, prefix

    def step(self, label: str, total: int | None = None) -> AbstractContextManager[Advance]:
        """A step of the other."""
        return self._inner.step(f"{self._prefix}{label}", total)


def on_stderr(quiet: bool = False) -> Progress:
    """Bars if stderr is a terminal and nobody asked for quiet, else nothing."""
    return Terminal() if sys.stderr.isatty() and not quiet else Silent()
