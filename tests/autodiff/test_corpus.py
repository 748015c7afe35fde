"""ONNX's own test cases of single nodes: every differentiable one passes, or is listed with a
reason."""

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

from onnxprune.autodiff import registered
from onnxprune.autodiff.definitions import definitions
from onnxprune.autodiff.sequences import SEQUENCE_OPS

NEWEST = 26  # the newest opset that onnxruntime runs
FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}

# Why cases do not pass. Every pattern must match a case, and every case that matches must fail.
REASONS: dict[str, str] = {
    "needs an op, attribute or domain newer than what onnxruntime runs": """
        causal_conv_with_state_*[!d] linear_attention_*[!d] linear_attention_gated flexattention
        flexattention_*[!6] swiglu swiglu_alpha swiglu_expanded swiglu_alpha_expanded
        spacetodepth_*_mode_example adagrad* adam* momentum*
        nesterov_momentum""",
    "no onnxruntime kernel for these types, this layout or this mode": """
        bernoulli* *castlike_*INT[24]_to_FLOAT* castlike_FLOAT4E2M1_to_FLOAT*
        castlike_FLOAT8E5M2_to_FLOAT* dequantizelinear_e5m2 dequantizelinear_float4e2m1
        *_batchwise mod_float*_fmod_0* pow_types_float32_uint32 pow_types_float32_uint64
        roialign_* attention_4d_diff_heads_mask4d_padded_kv""",
    "the case is about NaN, infinity or an empty set": """
        cast_FLOAT_to_DOUBLE cast_DOUBLE_to_FLOAT castlike_FLOAT_to_DOUBLE*
        castlike_DOUBLE_to_FLOAT* castlike_FLOAT16_to_* castlike_BFLOAT16_to_FLOAT*
        castlike_FLOAT8E4M3FN*_to_FLOAT* castlike_FLOAT8E5M2FNUZ_to_FLOAT*
        reduce_log_sum_empty_set* reduce_log_sum_exp_empty_set* reduce_max_empty_set
        reduce_min_empty_set acosh_example
        attention_4d_with_past_and_present_qk_matmul_bias_*d_mask_causal*""",
    "attention rows with every key masked: softmax of nothing, whose gradient is NaN": """
        attention_causal_boolmask_nan_robustness* attention_2*_fullymasked_*
        attention_4d_causal_nonpad_negative_offset_structural_empty*
        attention_local_window_gqa_rank4_mask*""",
    "onnx's definition asks Range for a scalar and gets a tensor of one axis": """
        affine_grid_*_expanded""",
    "piecewise constant, and the case lies on a step": "hardmax_axis_[12] hardmax_*_axis sign",
    "equal elements, whose order a step changes": """
        unique_sorted_with_axis_3d unique_sorted_with_negative_axis""",
    "carries trees, indices or optional values, nothing with a derivative": """
        ai_onnx_ml_* melweightmatrix""",
    "a form without a rule, refused by name": "scan_sum",
}
# Their float64 reference takes many seconds; smaller cases of the same ops are swept elsewhere.
SLOW = {"averagepool_3d_default", "lppool_3d_default"}


# How ops without a rule of their own are differentiated all the same.
OTHERWISE = {
    "written out, where their course is known": {"Loop", "Scan"},
    "taken apart, where their contents are known": SEQUENCE_OPS,
    "written as Resize from opset 10 on": {"Upsample"},
}


def test_every_op_of_onnx_is_dealt_with() -> None:
    newest: dict[str, Any] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "" and schema.since_version <= NEWEST:
            older = newest.get(schema.name)
            if older is None or older.since_version < schema.since_version:
                newest[schema.name] = schema
    known = {op_type for domain, op_type in registered() | definitions() if not domain}
    left = {
        name
        for name, schema in newest.items()
        if name not in known.union(*OTHERWISE.values())
        and not (schema.has_function or schema.has_context_dependent_function)
    }
    assert left == set()


@functools.cache
def load_cases() -> dict[str, Any]:
    """The cases with a floating-point input and output."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return {
        case.name.removeprefix("test_"): case
        for case in cases
        if case.name.removeprefix("test_") not in SLOW
        and _has_floats(case.model.graph.input)
        and _has_floats(case.model.graph.output)
    }


def _has_floats(values: Any) -> bool:
    return any(value.type.tensor_type.elem_type in FLOATS for value in values)


def prepared(case: Any) -> tuple[ir.Model, Feeds]:
    """The model at an opset that runs, integers and parameters as initializers, inputs off
    kinks."""
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


def listed(name: str) -> str | None:
    """The reason that the table gives for a case."""
    for reason, patterns in REASONS.items():
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns.split()):
            return reason
    return None


@pytest.mark.slow
def test_every_differentiable_case_passes_or_is_listed_with_a_reason() -> None:
    problems = {name: passes(case) for name, case in load_cases().items()}
    unlisted = {n: p for n, p in problems.items() if p is not None and listed(n) is None}
    assert not unlisted
    needless = [name for name, problem in problems.items() if problem is None and listed(name)]
    assert not needless, "these pass: take them off the list"
    patterns = {pattern for patterns in REASONS.values() for pattern in patterns.split()}
    assert not {p for p in patterns if not fnmatch.filter(problems, p)}
    assert sum(problem is None for problem in problems.values()) > 1000


@pytest.mark.parametrize("part", range(8))
def test_a_sample_of_the_cases(part: int) -> None:
    names = [name for name in sorted(load_cases()) if listed(name) is None]
    for name in names[part * 7 :: 97]:
        problem = passes(load_cases()[name])
        assert problem is None, f"{name}: {problem}"
