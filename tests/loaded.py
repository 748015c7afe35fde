"""Small models as the program loads them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from onnxprune.dims import Tracing, trace
from onnxprune.graph import inline, load
from onnxprune.runtime.measure import measure
from tests.dims.exact import build


def loaded(text: str, **more: Any) -> ir.Model:
    """The model of `build`, from a file that is gone again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(build(text, **more), path)
        return inline(load(path))


def traced(text: str, **more: Any) -> Tracing:
    """The same, traced."""
    model = loaded(text, **more)
    return trace(model, measure(model))


def value(model: ir.Model, name: str) -> ir.Value:
    """A value by name, those of bodies included."""
    for node in model.graph.all_nodes():
        for each in node.outputs:
            if each.name == name:
                return each
    return model.graph.initializers[name]
