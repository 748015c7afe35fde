from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.errors import OptionError
from onnxprune.options import NM, PruneOptions


@pytest.mark.parametrize("sparsity", [1, 1.0, 7, -0.1, math.nan, math.inf, "0.5", True])
def test_a_sparsity_outside_0_to_1_is_refused(sparsity: object) -> None:
    with pytest.raises(OptionError, match="sparsity"):
        PruneOptions.of(sparsity=sparsity)


@pytest.mark.parametrize("sparsity", [0, 0.0, 0.5, 0.999, np.float32(0.25)])
def test_a_sparsity_from_0_below_1_is_taken(sparsity: float) -> None:
    assert PruneOptions.of(sparsity=sparsity).fraction == sparsity


@pytest.mark.parametrize(
    "values",
    [
        {"criterion": "nonsense"},
        {"scope": "everywhere"},
        {"recover": "lstsq?"},
        {"min_channels": 0},
        {"round_to": 0},
        {"round_to": 1.5},
        {"seed": -1},
        {"providers": []},
        {"threshold": -1.0, "granularity": "weight"},
        {"threshold": math.nan, "granularity": "weight"},
        {"threshold": math.inf, "granularity": "weight"},
        {"threshold": 0.1},
        {"threshold": 0.1, "granularity": "2:4"},
        {"relative_threshold": 0.1, "granularity": "block:4x4"},
        {"threshold": 0.1, "sparsity": 0.5, "granularity": "weight"},
        {"threshold": 0.1, "relative_threshold": 0.5, "granularity": "weight"},
        {"threshold": 0.1, "granularity": "weight", "criterion": "random"},
        {"sparsity": 0.5, "granularity": "2:4"},
        {"sparse_format": True},
        {"granularity": "filter"},
        {"report": "report.txt"},
        {"sparsty": 0.5},
        {"shapes": ["1x3"]},
        {"shapes": ["x=1,3"]},
        {"shapes": ["x=1x-3"]},
    ],
    ids=str,
)
def test_what_makes_no_sense_is_an_option_error_of_one_line(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError) as error:
        PruneOptions.of(**values)
    assert len(str(error.value).splitlines()) == 1


def test_defaults_and_what_n_of_m_says() -> None:
    assert PruneOptions().fraction == 0.5
    assert PruneOptions.of(granularity="1:4").fraction == 0.75
    assert PruneOptions.of(granularity="1:4").granularity == NM(1, 4)


def test_plain_values_become_the_right_types() -> None:
    options = PruneOptions.of(exclude="head.*", providers=["cuda", "cpu"], data="x.npz")
    assert options.exclude == ("head.*",)
    assert options.providers == ("cuda", "cpu")
    assert options.data == Path("x.npz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("x=1x3", {"x": (1, 3)}), ("a=b:0=7", {"a=b:0": (7,)}), ("scalar=", {"scalar": ()})],
)
def test_shapes_are_read_from_text(text: str, expected: dict[str, tuple[int, ...]]) -> None:
    assert PruneOptions.of(shapes=[text]).shapes == expected


def test_as_json_they_state_what_will_happen() -> None:
    plain = json.loads(json.dumps(PruneOptions.of(granularity="2:4", plan="p.json").to_dict()))
    assert plain["granularity"] == "2:4"
    assert plain["sparsity"] == 0.5
    assert plain["plan"] == "p.json"
    assert PruneOptions.of(granularity="weight", threshold=0.1).to_dict()["sparsity"] is None


@pytest.mark.parametrize(
    "values",
    [
        {"granularity": 4},
        {"target": 0.5},
        {"plan": True},
        {"data": {"x": 1}},
        {"exclude": [3]},
        {"shapes": {"x": (2.5, 8)}},
        {"shapes": {"x": (0, 8)}},
        {"shapes": ["x=0x8"]},
        {"train": 3, "recover": "finetune", "data": "x.npz"},
    ],
    ids=str,
)
def test_values_of_another_kind(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        PruneOptions.of(**values)


def test_numbers_of_numpy_are_numbers_and_none_is_the_default() -> None:
    found = PruneOptions.of(
        sparsity=np.float32(0.25), seed=np.int64(3), min_channels=None, exclude=None
    )
    assert json.loads(json.dumps(found.to_dict()))["sparsity"] == 0.25
    assert (type(found.seed), found.min_channels, found.exclude) == (int, 1, ())
