"""Batches made ahead of time."""

from __future__ import annotations

import threading

import pytest

from onnxprune.train.prefetch import prefetched


def test_results_come_in_order_from_another_thread() -> None:
    threads = set()

    def square(n: int) -> int:
        threads.add(threading.current_thread().name)
        return n * n

    assert list(prefetched(square, range(20))) == [n * n for n in range(20)]
    assert list(prefetched(square, [])) == []
    assert threading.current_thread().name not in threads


def test_what_goes_wrong_goes_wrong_at_its_turn() -> None:
    def fails(n: int) -> int:
        if n == 2:
            raise ValueError("two")
        return n

    results = prefetched(fails, range(5))
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_it_runs_ahead_but_not_away_and_ends_when_closed() -> None:
    seen = []
    results = prefetched(seen.append, range(100), ahead=3)
    next(results)
    results.close()
    assert 1 <= len(seen) <= 5
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
