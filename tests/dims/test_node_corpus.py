"""onnx's own test cases, one op each: tracing never raises, and what is cut is exact.

Each float input of a case in turn is made of a matrix product with a weight, so that there are channels to cut along
its last axis; the others become initializers with the data of the case.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.errors import ModelError
from tests.dims.exact import assert_cut_equals_mask, inputs, session

Models = Iterator[tuple[str, onnx.ModelProto]]

NEWEST_OPSET, NEWEST_IR = 26, 13
"""That onnxruntime 1.31 takes."""
OLDEST_IR = 4
"""Of initializers that are no inputs."""


def corpus() -> Models:
    """Every case (some 2,000) whose inputs and outputs are tensors, with one input made by a MatMul."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    for case in cases:
        model = case.model
        if model is None or not case.data_sets:
            continue
        model.ir_version = min(max(model.ir_version, OLDEST_IR), NEWEST_IR)
        if not any(opset.domain == "" for opset in model.opset_import):
            model.opset_import.append(helper.make_opsetid("", 17))
        if all(opset.version <= NEWEST_OPSET for opset in model.opset_import):
            yield from ((f"{case.name}[{k}]", made) for k, made in fed(model, case.data_sets[0][0]))


def fed(model: onnx.ModelProto, data: list[object]) -> Iterator[tuple[int, onnx.ModelProto]]:
    """The model once for each float input, that one computed and the others constant."""
    for k, (value, array) in enumerate(zip(model.graph.input, data, strict=False)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.ndim < 1:
            continue
        if not all(isinstance(other, np.ndarray) for other in data) or not array.size:
            continue
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        given = list(copy.graph.input)
        del copy.graph.input[:]
        n = array.shape[-1]
        w = np.eye(n, dtype="f4") + 0.1 * np.arange(n * n, dtype="f4").reshape(n, n) / n**2
        product = helper.make_node("MatMul", ["fed/x", "fed/w"], [value.name])
        copy.graph.node.insert(0, product)
        copy.graph.initializer.append(numpy_helper.from_array(w, "fed/w"))
        copy.graph.input.append(
            helper.make_tensor_value_info("fed/x", onnx.TensorProto.FLOAT, array.shape)
        )
        for other, content in zip(given, data, strict=False):
            if other.name != value.name:
                copy.graph.initializer.append(numpy_helper.from_array(content, other.name))
        yield k, copy


def runs(model: onnx.ModelProto) -> bool:
    """Whether onnxruntime knows the op, and takes random numbers."""
    try:
        made = session(model)
        for seed in (1, 2):
            made.run(None, inputs(made, {v.name: tuple(v.shape) for v in made.get_inputs()}, seed))
    except Exception as error:  # onnxruntime's errors have no common base
        if not type(error).__module__.startswith("onnxruntime"):
            raise
        return False
    return True


@pytest.mark.slow
def test_every_case_is_cut_exactly_or_not_at_all() -> None:
    done, cut, wrong = 0, 0, {}
    for name, model in corpus():
        if not runs(model):
            continue
        done += 1
        try:
            cut += bool(assert_cut_equals_mask(model, strict=False).plan)
        except ModelError:
            continue  # inputs of another seed that the op refuses
        except Exception as error:  # all of them are wanted, not the first
            wrong[name] = f"{type(error).__name__}: {error}"
    assert not wrong, wrong
    assert done > 1500
    assert cut > 400
