"""How wide each Dim stays: the indices that cost least go first, whatever Dim they are of.

At every step each Dim proposes its next few indices, the ones whose removal loses least (more of them where few save
nothing, as on a staircase); the Dim goes that loses least
per unit of the budget, and all that its going changes (the losses of Dims that share a consumer, the savings of those
that share a node) is worked out anew. Of the proposals that reach the target the one goes that loses least: what it
saves beyond is worth nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count as counter

import numpy as np

from onnxprune.dims import Dim
from onnxprune.plan.budget import Cost
from onnxprune.scores.obs import Consumers

__all__ = ["SLACK", "round_down", "shrink_evenly", "shrink_to", "shrink_to_counts", "widened"]

PORTION = 48
"""One in so many of its indices a Dim loses at a time, and without rounding that many it proposes."""
SHARES = 10
"""How often the share that every Dim keeps is halved in on."""

SLACK = 0.02
"""Of the target: a block that leaves less goes only where no other will do."""


def shrink_to(
    consumers: Consumers,
    cost: Cost,
    target: float,
    steps: Mapping[Dim, int],
    least: Mapping[Dim, int],
    advance: Callable[[int], None] = lambda _n: None,
) -> float:
    """Removes indices until the cost is at most `target` times what it was.

    Args:
        consumers: What every index costs in accuracy; changed in place.
        cost: What it costs in the budget's currency.
        target: The fraction that may be left.
        steps: A Dim keeps a multiple of so many indices.
        least: The fewest indices that a Dim may keep.
        advance: Told how many indices went.

    Returns:
        The fraction of the cost that is left; more than `target` where nothing more could go.
    """
    whole = cost.total({})
    goal = target * whole
    kept = {dim: len(consumers.left[dim]) for dim in steps}
    now = cost.total(kept)
    version = dict.fromkeys(steps, 0)
    queue: list[tuple[float, int, Dim, int, np.ndarray]] = []
    numbers = counter()

    def propose(dim: Dim) -> None:
        version[dim] += 1
        count = _next_count(kept[dim], steps[dim], least[dim])
        while count is not None:
            saved = cost.saved(kept, dim, count)
            if saved > 0:
                indices, loss = consumers.next_to_go(dim, kept[dim] - count, _portion(kept[dim]))
                price = loss / saved
                heapq.heappush(queue, (price, next(numbers), dim, version[dim], indices))
                return
            count = _next_count(count, steps[dim], least[dim])

    def saved_by(dim: Dim, indices: np.ndarray) -> float:
        return cost.saved(kept, dim, kept[dim] - len(indices))

    def last(slack: float) -> tuple[Dim, np.ndarray] | None:
        """What loses least of all that reaches the target and leaves no less than `1 - slack` of it."""
        ends = list[tuple[float, int, Dim, np.ndarray]]()
        for _, _, dim, made, indices in sorted(queue, key=lambda entry: entry[1]):
            if made != version[dim] or saved_by(dim, indices) < now - goal:
                continue
            few = _enough(cost, kept, dim, indices, now - goal) if steps[dim] == 1 else indices
            if steps[dim] > 1 and saved_by(dim, few) > now - (1 - slack) * goal:
                continue
            found, loss = consumers.cheapest(dim, len(few))
            ends.append((loss, len(ends), dim, found))
        return min(ends)[2:] if ends else None

    def smaller() -> tuple[Dim, np.ndarray] | None:
        """What is cheapest of all that does not reach the target yet."""
        fit = [
            (price, number, dim, indices)
            for price, number, dim, made, indices in queue
            if made == version[dim] and saved_by(dim, indices) < now - goal
        ]
        return min(fit)[2:] if fit else None

    order = {dim: k for k, dim in enumerate(steps)}
    for dim in steps:
        propose(dim)
    while now > goal and queue:
        _, _, dim, made, indices = queue[0]
        if made == version[dim] and saved_by(dim, indices) >= now - goal:
            dim, indices = last(SLACK) or smaller() or last(1.0) or (dim, indices)
        else:
            heapq.heappop(queue)
            if made != version[dim]:
                continue
        now -= saved_by(dim, indices)
        kept[dim] -= len(indices)
        consumers.remove(dim, indices)
        advance(len(indices))
        if now <= goal:
            break
        for other in sorted(consumers.neighbours(dim), key=order.__getitem__):
            propose(other)
    return cost.total(kept) / whole


def shrink_evenly(
    consumers: Consumers,
    cost: Cost,
    target: float,
    steps: Mapping[Dim, int],
    least: Mapping[Dim, int],
    advance: Callable[[int], None] = lambda _n: None,
) -> float:
    """The same with as large a share of every Dim as the target leaves; see `shrink_to`."""

    def counts(share: float) -> dict[Dim, int]:
        found = {}
        for dim, step in steps.items():
            wanted = max(int(share * dim.size) // step * step, least[dim], 1)
            found[dim] = min(wanted, len(consumers.left[dim]))
        return found

    low, high, whole = 0.0, 1.0, cost.total({})
    for _ in range(SHARES):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if cost.total(counts(middle)) <= target * whole else (low, middle)
        )
    final = counts(low)
    shrink_to_counts(consumers, final)
    advance(sum(dim.size - count for dim, count in final.items()))
    return cost.total(final) / whole


def widened(
    consumers: Consumers, cost: Cost, target: float, steps: Mapping[Dim, int]
) -> dict[Dim, int]:
    """How many indices each Dim may keep where what is left is less than the target: what went last comes back first.

    Args:
        consumers: After a `shrink_to`.
        cost: What it was told.
        target: The fraction that may be left.
        steps: A Dim keeps a multiple of so many indices.
    """
    goal = target * cost.total({})
    kept = {dim: len(left) for dim, left in consumers.left.items()}
    back = dict.fromkeys(kept, 0)  # indices that could come back, once they are as many as a step
    whole = kept.copy()
    for dim, indices in consumers.gone:
        whole[dim] += len(indices)
    full = set[Dim]()  # have no room for all of what went last, so for nothing that went before it
    for dim, indices in reversed(consumers.gone):
        if dim in full:
            continue
        back[dim] += len(indices)
        counts = range(kept[dim] + back[dim], kept[dim], -1)
        allowed = [n for n in counts if n % steps.get(dim, 1) == 0 or n == whole[dim]]
        fitting = (n for n in allowed if cost.total({**kept, dim: n}) <= goal)
        count = next(fitting, kept[dim])
        if allowed and count < allowed[0]:
            full.add(dim)
        back[dim] -= count - kept[dim]
        kept[dim] = count
    return kept


def round_down(consumers: Consumers, steps: Mapping[Dim, int]) -> None:
    """Removes what Dims have beyond a multiple of so many indices, for good."""
    for dim, step in steps.items():
        left = len(consumers.left[dim])
        if left > step and left % step:
            consumers.remove(dim, consumers.next_to_go(dim, left % step, _portion(left))[0])
    consumers.gone.clear()


def shrink_to_counts(consumers: Consumers, counts: Mapping[Dim, int]) -> None:
    """Removes indices until every Dim keeps as many as it should, all Dims at the same pace."""
    while True:
        behind = {
            dim: (len(consumers.left[dim]) - count) / (dim.size - count)
            for dim, count in counts.items()
            if len(consumers.left[dim]) > count
        }
        if not behind:
            return
        dim = max(behind, key=behind.__getitem__)
        left = len(consumers.left[dim])
        portion = min(left - counts[dim], _portion(left))
        consumers.remove(dim, consumers.cheapest(dim, portion)[0])


def _next_count(kept: int, step: int, least: int) -> int | None:
    """The next smaller number of indices that a Dim may keep."""
    count = kept - _portion(kept) if step == 1 else (kept - 1) // step * step
    return count if count >= max(least, 1) else None


def _portion(kept: int) -> int:
    """Indices of a Dim that go without a look at the others in between."""
    return max(1, kept // PORTION)


def _enough(
    cost: Cost, kept: Mapping[Dim, int], dim: Dim, indices: np.ndarray, wanted: float
) -> np.ndarray:
    """As many of the indices as are needed, cheapest first."""
    few: Sequence[int] = range(1, len(indices))
    for n in few:
        if cost.saved(kept, dim, kept[dim] - n) >= wanted:
            return indices[:n]
    return indices
