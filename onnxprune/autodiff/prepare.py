"""A copy of a model, ready to be differentiated.

Functions are inlined, the opset is at least 18, initializers are no inputs and all in the main graph,
every value carries the element type and shape that a real run gave it, and ops that have no rule but
are defined in terms of simpler ones, by ONNX or in `definitions`, are replaced by those.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune.autodiff.control import hoist_constants
from onnxprune.autodiff.definitions import write_out
from onnxprune.autodiff.expand import expand
from onnxprune.autodiff.opset import raise_opset
from onnxprune.autodiff.sequences import resolve
from onnxprune.autodiff.shapes import annotate
from onnxprune.autodiff.unroll import unroll
from onnxprune.graph import clone, inline

__all__ = ["prepare"]

_IR_VERSION = 4  # the first in which initializers need not be inputs
_MOST_EXPANSIONS = 8  # of functions within functions


def prepare(model: ir.Model, feeds: Mapping[str, np.ndarray[Any, Any]] | None = None) -> ir.Model:
    """The copy.

    Args:
        model: Any model that onnxruntime runs; left as it is.
        feeds: Inputs to learn shapes from; random ones by default.

    Returns:
        A model whose values all have types and shapes (those of control-flow bodies excepted).

    Raises:
        ModelError: onnxruntime does not run the model.
    """
    prepared = inline(clone(model))
    for name, value in list(prepared.graph.initializers.items()):
        if value.is_graph_input():
            prepared.graph.inputs.remove(value)
            prepared.graph.initializers[name] = value
    prepared.ir_version = max(prepared.ir_version or 0, _IR_VERSION)
    hoist_constants(prepared)
    feeds = annotate(prepared, feeds)
    if raise_opset(prepared):
        annotate(prepared, feeds)
    for turn in range(_MOST_EXPANSIONS):
        expanded = expand(prepared)
        written = write_out(prepared, f"defined{turn}/")
        resolved = resolve(prepared, f"resolved{turn}/")
        if not (unroll(prepared, f"unrolled{turn}/") or expanded or written or resolved):
            break
        annotate(prepared, feeds)
    return prepared
