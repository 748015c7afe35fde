from __future__ import annotations

import pytest

from onnxprune.dims import axes, rule_for, specs
from onnxprune.dims.spec import Spec, Token
from tests.dims.exact import build, prune


def test_the_grammar() -> None:
    spec = Spec.parse("n (g i) _*, *, (g o)? c~ -> s* 4 d!; g=group/1, h=heads; group=g")
    assert spec.inputs == (
        (Token(("n",)), Token(("g", "i")), Token(("_",), repeated=True)),
        None,
        (Token(("g", "o"), optional=True), Token(("c",), inexact=True)),
    )
    assert spec.outputs == (
        (Token(("s",), repeated=True), Token(("4",)), Token(("d",), frozen=True)),
    )
    assert spec.letter_sizes == (("g", "group", 1), ("h", "heads", None))
    assert spec.attribute_sizes == (("group", "g"),)


def test_a_spec_without_an_arrow_is_refused() -> None:
    with pytest.raises(ValueError, match="no arrow"):
        Spec.parse("n c")


def test_an_op_has_one_rule() -> None:
    assert rule_for("ai.onnx", "Conv") is rule_for("", "Conv")
    assert rule_for("acme", "Conv") is None
    with pytest.raises(ValueError, match="already has an axis rule"):
        specs({"Conv": "n -> n"})
    with pytest.raises(ValueError, match="FusedConv already"):
        axes("FusedConv", domain="com.microsoft")(lambda node: None)


def test_marks_reach_the_dims() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            a = Conv(x, w1)
            l = LRN<size=3>(a)
            y = Conv(l, w2)
        }""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
    )
    cut = prune(model)
    assert cut.shape("w1")[0] == 8
    reason = next(info.dim.inexact for info in cut.tracing.dims if info.name == "w1:0")
    assert reason == "LRN normalises over it"
