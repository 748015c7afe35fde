"""Every op of the default domain either has a rule or is in the table of those that freeze what they touch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune.dims import registered
from onnxprune.dims.rules import frozen
from tests.dims.exact import build, prune

FROZEN = {op for ops in frozen.REASONS.values() for op in ops.split()}
WEIGHTS = {"Constant"}
"""No op to the tracing: its tensor is a weight."""


def test_no_op_of_the_default_domain_is_forgotten() -> None:
    known = {op for domain, op in registered() if domain == ""}
    every = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert every - known == WEIGHTS


def test_every_name_in_the_table_is_an_op() -> None:
    schemas = {schema.name for schema in onnx.defs.get_all_schemas_with_history()}
    assert schemas >= FROZEN


@pytest.mark.parametrize(
    "text",
    [
        "f = Det(a)",
        "e = OneHot(labels, depth, values) d = Add(e, a) f = ReduceSum<keepdims=0>(d)",
        "e = NonZero(a) d = Cast<to=1>(e) f = ReduceSum<keepdims=0>(d)",
        "e = Size(a) f = Cast<to=1>(e)",
        "e = SequenceConstruct(a, a) d = SequenceAt(e, zero) f = ReduceSum<keepdims=0>(d)",
        "f = NegativeLogLikelihoodLoss(a, labels)",
    ],
)
def test_what_the_table_names_freezes_both_axes_and_says_why(text: str) -> None:
    used = {
        "zero": np.array(0),
        "labels": np.zeros(8, int),
        "depth": np.array(8),
        "values": np.float32([0, 1]),
    }
    model = build(
        f"""(float[8,6] x) => (float[N,5] y) {{
            h = MatMul(x, w0)
            r = Relu(h)
            a = MatMul(r, w1)
            {text}
            s = Mul(x, f)
            y = MatMul(s, w2)
        }}""",
        w0=(6, 10),
        w1=(10, 8),
        w2=(6, 5),
        **{name: value for name, value in used.items() if name in text},
    )
    cut = prune(model)
    assert cut.shape("w1") == (5, 8)
    op = text.split("= ")[1].split("(")[0].split("<")[0]
    reason = next(d.dim.frozen for d in cut.tracing.dims if d.name == "w1:1")
    assert reason is not None
    assert reason.startswith(op)
