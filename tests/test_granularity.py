from __future__ import annotations

import pytest

from onnxprune.errors import OptionError
from onnxprune.options import NM, Block, Channel, Unstructured, parse_granularity


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("channel", Channel()),
        ("weight", Unstructured()),
        (" Weight ", Unstructured()),
        ("2:4", NM(2, 4)),
        ("1:8", NM(1, 8)),
        ("block:4x1", Block(4, 1)),
        ("block:16X16", Block(16, 16)),
    ],
)
def test_texts_name_granularities_and_come_back(text: str, expected: object) -> None:
    parsed = parse_granularity(text)
    assert parsed == expected
    assert parse_granularity(str(parsed)) == expected


@pytest.mark.parametrize("text", ["", "filter", "2:", "4:2", "0:4", "4:4", "-1:4", "2.5:4"])
@pytest.mark.parametrize("prefix", ["", "block:"])
def test_other_texts_are_option_errors(prefix: str, text: str) -> None:
    with pytest.raises(OptionError):
        parse_granularity(prefix + text)


@pytest.mark.parametrize("text", ["block:0x4", "block:4x0", "block:4", "block:axb", "block:4x4x4"])
def test_blocks_without_two_sizes_are_option_errors(text: str) -> None:
    with pytest.raises(OptionError):
        parse_granularity(text)
