"""Batches made ahead of time: a thread prepares the next ones while a step runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetched"]

AHEAD = 2
"""Results that wait at most."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetched(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[Result]:
    """`map` in a thread of its own, a few items ahead; in order, one at a time.

    What the function raises is raised here, at its item's turn. When the iterator is closed the thread ends, once it
    has finished the item it is at.

    Args:
        function: Called with each item; it must not depend on what is done with the results.
        items: Its arguments.
        ahead: How many results wait at most.
    """
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(1, "prefetch")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
