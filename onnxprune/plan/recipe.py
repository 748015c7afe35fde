"""How what goes is chosen, as plain data: so that a few ways can be tried and held against each other."""

from __future__ import annotations

from dataclasses import dataclass, field

from onnxprune.plan.rounding import Blocks
from onnxprune.plan.second_order import Pricing

__all__ = ["Recipe"]


@dataclass(frozen=True)
class Recipe:
    """One way to choose.

    Attributes:
        criterion: Name of the criterion.
        scope: How a target is spread: `global` takes the indices that cost least per unit of it, `layer` the same share
            of every Dim.
        pricing: What errors are worth, for `obs`.
        blocks: What the kernels ask of a cut in stages; None: as of any other.
    """

    criterion: str = "obs"
    scope: str = "global"
    pricing: Pricing = field(default_factory=Pricing)
    blocks: Blocks | None = None

    def __str__(self) -> str:
        if self.criterion != "obs":
            return f"{self.criterion}, {self.scope}"
        price = self.pricing
        tilt = f", tilt {price.seed}" if price.tilt else ""
        saves = f", by {price.saves}" if price.saves else ""
        return f"obs, {self.scope}, trust {price.trust:g}{saves}{tilt}"
