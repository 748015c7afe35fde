"""The plan for granularities that zero weights: a packed mask for each tensor, as data and as JSON.

    {"format": "onnxprune-plan/1", "granularity": "2:4", "removed": {},
     "zeroed": {"conv1.weight": {"shape": [64, 3, 7, 7], "count": 4704, "bits": "eNp..."}},
     "skipped": {"lm_head.qweight": "MatMulNBits stores several weights in a byte"}}

`bits`: one bit an element in C order, most significant bit first, set where the element becomes zero (an integer
weight: its zero point); compressed with zlib, written in base64. `count` is the number of bits set. Tensors are named
as in the input file; where a name occurs again in another scope (a branch, a function), `#2`, `#3` ... follow it, in
the order of `onnxprune.graph.weights`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from onnxprune.errors import OnnxPruneError
from onnxprune.plan.masks import BoolArray

__all__ = ["PLAN_FORMAT", "Mask", "WeightPlan"]

PLAN_FORMAT = "onnxprune-plan/1"


@dataclass(frozen=True)
class Mask:
    """Which elements of a tensor become zero, one bit each.

    Attributes:
        shape: Of the tensor.
        count: Elements that become zero.
        packed: zlib of the bits in C order, most significant first.
    """

    shape: tuple[int, ...]
    count: int
    packed: bytes

    @classmethod
    def of(cls, mask: BoolArray) -> Mask:
        """Packs a boolean array."""
        bits = np.packbits(mask.reshape(-1))
        return cls(mask.shape, int(np.count_nonzero(mask)), zlib.compress(bits.tobytes(), 1))

    def array(self) -> BoolArray:
        """The boolean array."""
        bits = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return np.unpackbits(bits, count=self.size).astype(np.bool_).reshape(self.shape)

    @property
    def size(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    def to_dict(self) -> dict[str, Any]:
        """As in the module docstring."""
        bits = base64.b64encode(self.packed).decode()
        return {"shape": list(self.shape), "count": self.count, "bits": bits}

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Mask:
        """Reads what `to_dict` gave.

        Raises:
            OnnxPruneError: The entry is damaged.
        """
        try:
            mask = cls(tuple(data["shape"]), data["count"], base64.b64decode(data["bits"]))
            right = int(np.count_nonzero(mask.array())) == mask.count
        except (KeyError, TypeError, ValueError, zlib.error, binascii.Error) as error:
            raise OnnxPruneError(f"the plan's mask for {name!r} cannot be read: {error}") from error
        if not right:
            raise OnnxPruneError(f"the plan's mask for {name!r} has not the count it states")
        return mask


@dataclass(frozen=True)
class WeightPlan:
    """What becomes zero.

    Attributes:
        granularity: As on the command line.
        zeroed: Mask by tensor name; tensors that stay whole are left out.
        skipped: Weights left alone, with the reason.
        details: What else the plan states (options, scores), as JSON takes it.
    """

    granularity: str
    zeroed: Mapping[str, Mask]
    skipped: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Elements that become zero."""
        return sum(mask.count for mask in self.zeroed.values())

    def to_dict(self) -> dict[str, Any]:
        """As in the module docstring."""
        return {
            "format": PLAN_FORMAT,
            "granularity": self.granularity,
            "removed": {},
            "zeroed": {name: mask.to_dict() for name, mask in self.zeroed.items()},
            "skipped": dict(self.skipped),
            **self.details,
        }

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WeightPlan:
        """Reads what `to_dict` gave.

        Raises:
            OnnxPruneError: It is no such plan, or damaged.
        """
        if not isinstance(data, Mapping) or data.get("format") != PLAN_FORMAT:
            raise OnnxPruneError(f'this is no plan of the format "{PLAN_FORMAT}"')
        if data.get("removed") or not isinstance(data.get("zeroed"), Mapping):
            raise OnnxPruneError("this plan removes channels; a plan that zeroes weights is needed")
        known = ("format", "granularity", "removed", "zeroed", "skipped")
        return cls(
            str(data.get("granularity", "weight")),
            {name: Mask.from_dict(name, mask) for name, mask in data["zeroed"].items()},
            dict(data.get("skipped", {})),
            {key: value for key, value in data.items() if key not in known},
        )

    @classmethod
    def load(cls, path: Path | str) -> WeightPlan:
        """Reads a plan from a JSON file.

        Raises:
            OnnxPruneError: It cannot be read, is not JSON, or no such plan.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise OnnxPruneError(f"the plan {path} cannot be read: {error}") from error
        return cls.from_dict(data)
