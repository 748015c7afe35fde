"""ONNX's own test cases of single nodes: every differentiable one passes, or is listed with a reason."""

from __future__ import annotations

import fnmatch
import functools
import warnings
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from adjoint import Feeds, check

NEWEST = 26  # the newest opset that onnxruntime runs
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}

# Why a case does not pass. Every pattern must match a case, and every matching case must fail.
REASONS: dict[str, list[str]] = {
    "not differentiable: a piecewise constant function, or random numbers": [],
}


def load_cases() -> dict[str, Any]:
    """The cases with a floating-point input and output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return {
        case.name: case
        for case in cases
        if _has_floats(case.model.graph.input) and _has_floats(case.model.graph.output)
    }


def _has_floats(values: Any) -> bool:
    return any(value.type.tensor_type.elem_type in FLOATS for value in values)


def prepared(case: Any) -> tuple[ir.Model, Feeds]:
    """The model at an opset that runs, integers and parameters as initializers, inputs off kinks."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    proto.ir_version = 10
    for entry in proto.opset_import:
        if entry.domain in {"", "ai.onnx"}:
            entry.version = min(entry.version, NEWEST)
    random = np.random.default_rng(0)
    feeds: Feeds = {}
    for value, given in zip(list(proto.graph.input), case.data_sets[0][0], strict=False):
        if isinstance(given, list):
            feeds[value.name] = given
            continue
        array = onnx.numpy_helper.to_array(given) if isinstance(given, onnx.TensorProto) else given
        array = np.asarray(array)
        if array.dtype.kind != "f" or value.name in PARAMETERS:
            proto.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
            proto.graph.input.remove(value)
        elif array.ndim:
            moved = array * random.uniform(0.95, 1, array.shape) + 0.01 * (array == 0)
            feeds[value.name] = moved.astype(array.dtype)
        else:
            feeds[value.name] = array
    return ir.from_proto(proto), feeds


# Floating-point inputs that are no operands: where to read, or how large the output is.
PARAMETERS = {"scales", "roi", "depth", "start", "limit", "delta", "r", "t"}


def passes(case: Any) -> str | None:
    """None, or what goes wrong."""
    for exact in (True, False):
        model, feeds = prepared(case)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                check(model, feeds, exact=exact)
        except Exception as error:
            problem = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            if not isinstance(error, AssertionError):
                break
        else:
            return None
    return problem
