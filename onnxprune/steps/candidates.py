"""What is tried on the way to a target, as plain data: ways to choose what goes, and ways to repair what is left.

What the user has named is not tried otherwise. The more a trial takes, the fewer are made.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.options import PruneOptions
from onnxprune.plan.recipe import Recipe
from onnxprune.plan.second_order import Pricing

__all__ = ["CHEAP", "MOVES", "REFITTED", "SAME", "Repair", "recipes", "repairs"]

TRUSTS = (0.0, 0.25, 0.5, 0.75, 1.0)
TILT = 0.7
MOST_TILTS = 12
EFFORT = 3e9
"""MACs that all tilted trials of a stage may take in one pass of all samples; gradients are tried where one fits in."""
REFITTED = 3
"""Cuts of a stage that are re-fitted: those that do best before."""
CHEAP = 2e10
"""MACs of one pass of all samples up to which moved images are tried too."""
COPIES = 4
MOVES = (("flip", "crop"), ("crop",))
"""How they are moved: the first way that leaves them what they are."""
SAME = 0.8
"""Share of moved images that the original takes for what they were, from which on they count as like the data."""


@dataclass(frozen=True)
class Repair:
    """One way to repair.

    Attributes:
        method: `lstsq`, `bias`, or `none`: as the cut was made, see `onnxprune.recover.compensate`.
        copies: How many moved copies of every image are fitted on beside it.
        moves: How they are moved, see `onnxprune.train.augment`.
    """

    method: str = "lstsq"
    copies: int = 0
    moves: tuple[str, ...] = ()

    def __str__(self) -> str:
        return (
            f"{self.method}, {self.copies} copies by {'+'.join(self.moves)}"
            if self.copies
            else self.method
        )


def recipes(options: PruneOptions, effort: float) -> tuple[Recipe, ...]:
    """The ways to choose that are tried at every stage; those by `obs` come first.

    Args:
        options: What is asked for, and what was left open.
        effort: MACs that one pass of all samples through the model takes.
    """
    assert options.left_open is not None
    tilts = min(MOST_TILTS, int(EFFORT // max(effort, 1.0)))
    tilted = [Pricing(TRUSTS[k % len(TRUSTS)], TILT, k) for k in range(tilts)]
    if options.target is not None and options.target.kind == "latency":  # each asks the machine
        fewer = [*(Pricing(trust) for trust in TRUSTS[1:-1]), Pricing(saves="macs")]
        return tuple(Recipe("obs", "global", price) for price in (*fewer, *tilted))
    prices = [*(Pricing(trust) for trust in TRUSTS), *tilted]
    found = [Recipe("obs", "global", price) for price in prices]
    if "criterion" in options.left_open:
        found += [Recipe(name, "global") for name in ("magnitude", *["taylor"] * bool(tilts))]
    found.append(Recipe("obs", "layer"))
    return tuple(
        each for each in found if "scope" in options.left_open or each.scope == options.scope
    )


def repairs(options: PruneOptions, moves: tuple[str, ...]) -> tuple[Repair, ...]:
    """The ways to repair: the first is that of all trials, the others are tried on the best of them.

    Args:
        options: What is asked for, and what was left open.
        moves: How images may be moved about; empty where they may not.
    """
    assert options.left_open is not None
    found = [Repair()]
    if "recover" in options.left_open:
        found.append(Repair("bias"))
    if moves and options.recover == "lstsq":
        found.append(Repair("lstsq", COPIES, moves))
    return tuple(found)
