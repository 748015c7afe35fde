"""The command line as a function, and a small model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnxprune import cli
from tests.dims.exact import build

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A perceptron with 16 hidden units."""
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }",
        w1=(6, 16),
        w2=(16, 5),
    )
    onnx.save(model, tmp_path / "in.onnx")
    return tmp_path / "in.onnx"
