from __future__ import annotations

import pytest

from onnxprune.dims import Axis, Dim, axes, rule_for, size, specs
from onnxprune.dims.spec import Alternative, Spec, Token
from tests.dims.exact import build, prune


def test_the_grammar() -> None:
    spec = Spec.parse(
        "n (g i~)+k _*, *, (g o)? -> s* d! | mode=CRD: last: , n -> 4; group/1=g, h=(g o) n"
    )
    first, second = spec.alternatives
    assert first.inputs == (
        (Token((("n",),)), Token((("g", "i~"), ("k",))), Token((("_",),), True, repeated=True)),
        None,
        (Token((("g", "o"),), broadcast=True),),
    )
    assert first.outputs == ((Token((("s",),), True, repeated=True), Token((("d!",),))),)
    assert second == Alternative(
        ((), (Token((("n",),)),)), ((Token((("4",),)),),), (("mode", "CRD"), ("last", ""))
    )
    assert spec.sizes == (
        ("group", 1, (Token((("g",),)),)),
        ("h", None, (Token((("g", "o"),)), Token((("n",),)))),
    )


def test_one_unknown_letter_of_an_axis_follows_from_its_size() -> None:
    letters: dict[str, Axis] = {"h": Dim(3)}
    stated = Token.parse("(h d)+(h 2 d)").solved(36, letters)
    assert stated is not None
    assert size(letters["d"]) == 4
    assert Token.parse("(h d)").solved(13, letters) is None
    assert Token.parse("(e f)").solved(12, letters) is None


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
