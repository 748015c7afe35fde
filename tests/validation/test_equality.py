from __future__ import annotations

import numpy as np
import pytest

from onnxprune.dims import Keep, Tracing, cut
from onnxprune.errors import ModelError, ValidationError
from onnxprune.graph import weights
from onnxprune.validation import proof
from onnxprune.validation.equality import Equality, masked, relative_error
from onnxprune.validation.proof import inexact_dims, prove
from tests.loaded import traced

TEXT = "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) r = Relu(a) y = MatMul(r, w2) }"


def half(tracing: Tracing) -> Keep:
    """Every free Dim without its second half."""
    return {info.dim: np.arange(info.size) < info.size // 2 for info in tracing.free(True)}


def test_masking_zeroes_what_is_not_kept_and_leaves_the_original() -> None:
    tracing = traced(TEXT, w1=(6, 8), w2=(8, 5))
    found = {w.name.split("/")[0]: w.array() for w in weights(masked(tracing, half(tracing)))}
    before = {w.name: w.array() for w in weights(tracing.model)}
    assert not found["w1"][:, 4:].any()
    assert not found["w2"][4:].any()
    assert np.array_equal(found["w1"][:, :4], before["w1"][:, :4])
    assert before["w1"].all()


def test_a_quantised_weight_is_masked_with_its_zero_point() -> None:
    tracing = traced(
        """(float[N,6] x) => (float[N,5] y) {
            d = DequantizeLinear(q, s, z)
            a = MatMul(x, d)
            y = MatMul(a, w2)
        }""",
        q=np.full((6, 8), 9, np.uint8),
        s=np.float32(0.1),
        z=np.array(7, np.uint8),
        w2=(8, 5),
    )
    found = {w.name.split("/")[0]: w.array() for w in weights(masked(tracing, half(tracing)))}
    assert np.array_equal(np.unique(found["q"][:, 4:]), [7])
    assert np.array_equal(np.unique(found["q"][:, :4]), [9])


def test_variances_and_divisors_are_left_alone() -> None:
    tracing = traced(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            n = BatchNormalization(a, s, b, m, v)
            d = Div(n, q)
            y = MatMul(d, w2)
        }""",
        w1=(6, 8),
        w2=(8, 5),
        s=(8,),
        b=(8,),
        m=(8,),
        v=np.ones(8, "f4"),
        q=np.ones(8, "f4"),
    )
    found = {w.name.split("/")[0]: w.array() for w in weights(masked(tracing, half(tracing)))}
    assert found["v"].all()
    assert found["q"].all()
    assert not found["s"][4:].any()


def test_the_proof_of_a_right_cut_holds_and_of_a_wrong_one_does_not() -> None:
    tracing = traced(TEXT, w1=(6, 8), w2=(8, 5))
    keep = half(tracing)
    right = prove(tracing, keep, cut(tracing, keep))
    assert right.holds
    assert right.error < 1e-5
    other = {dim: ~mask for dim, mask in keep.items()}
    wrong = prove(tracing, keep, cut(tracing, other))
    assert not wrong.holds
    assert wrong.output == "y"


def test_a_model_that_does_not_run_is_no_proof() -> None:
    tracing = traced(TEXT, w1=(6, 8), w2=(8, 5))
    keep = half(tracing)
    broken = cut(tracing, keep)
    broken.graph.node(0).op_type = "Nonsense"
    equality = prove(tracing, keep, broken)
    assert not equality.holds
    assert "onnxruntime does not load" in equality.output


def test_a_dim_that_spoils_the_proof_is_found_among_others() -> None:
    """A sigmoid makes one half of zero, and a sum without weights counts it."""
    tracing = traced(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            s = Sigmoid(a)
            t = ReduceSum(s, last)
            h = MatMul(x, w2)
            r = Relu(h)
            g = MatMul(r, w3)
            i = Relu(g)
            j = MatMul(i, w4)
            y = Mul(t, j)
        }""",
        last=np.array([1]),
        w1=(6, 8),
        w2=(6, 8),
        w3=(8, 10),
        w4=(10, 5),
    )
    keep = half(tracing)
    assert len(keep) == 3
    assert not prove(tracing, keep, cut(tracing, keep)).holds
    guilty = inexact_dims(tracing, keep)
    assert [info.name for info in tracing.dims if info.dim in guilty] == ["w1:1"]


@pytest.mark.parametrize(("proofs", "left"), [(16, 1), (1, 2)])
def test_what_is_exact_alone_but_not_together_is_cut_as_far_as_it_is(
    monkeypatch: pytest.MonkeyPatch, proofs: int, left: int
) -> None:
    """Float noise adds up: no Dim makes it, but all together do. Where proofs are up, what is not absolved remains."""
    text = (
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) b = MatMul(a, w2) y = MatMul(b, w3) }"
    )
    tracing = traced(text, w1=(6, 8), w2=(8, 10), w3=(10, 5))
    keep = half(tracing)
    assert len(keep) == 2

    def together(_tracing: object, part: Keep, *_more: object) -> Equality:
        return Equality(float(len(part) > 1 or proofs == 1), "y", 1)

    monkeypatch.setattr(proof, "prove", together)
    monkeypatch.setattr(proof, "LEAST_PROOFS", proofs)
    monkeypatch.setattr(proof, "MOST_PROOFS", proofs)
    assert len(inexact_dims(tracing, keep)) == left


def test_random_numbers_are_no_matter_of_search(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = traced(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            b = MatMul(a, w2)
            n = RandomNormalLike(b)
            y = Add(b, n)
        }""",
        w1=(6, 8),
        w2=(8, 5),
    )
    keep = half(tracing)
    monkeypatch.setattr(proof, "prove", lambda *_a, **_k: pytest.fail("a proof"))
    assert inexact_dims(tracing, keep) == list(keep) != []


def test_dims_cut_on_request_are_left_out_of_the_comparison() -> None:
    tracing = traced(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            n = LayerNormalization(a, s)
            h = MatMul(n, w2)
            r = Relu(h)
            y = MatMul(r, w3)
        }""",
        w1=(6, 8),
        s=(8,),
        w2=(8, 10),
        w3=(10, 5),
    )
    keep = half(tracing)
    assert len(keep) == 2
    assert prove(tracing, keep, cut(tracing, keep)).holds


def test_nobody_to_blame_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    tracing = traced(TEXT, w1=(6, 8), w2=(8, 5))
    monkeypatch.setattr(proof, "prove", lambda *_a, **_k: Equality(0.0, "y", 1))
    with pytest.raises(ValidationError, match="nothing was written"):
        inexact_dims(tracing, half(tracing))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (np.array([3.0, 4.0]), np.array([3.0, 4.0]), 0.0),
        (np.array([3.0, 4.0]), np.array([3.0, 9.0]), 1.0),
        (np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), 0.25),
        (np.zeros(3), np.zeros(4), np.inf),
        (np.array([1.0, np.inf]), np.array([1.0, 2.0]), np.inf),
        (np.array([3.0, np.nan]), np.array([3.0, np.nan]), 0.0),
        (np.zeros(0), np.zeros(0), 0.0),
        ([1], [1], 0.0),
        ([1], np.zeros(1), np.inf),
    ],
)
def test_relative_errors(a: object, b: object, expected: float) -> None:
    assert relative_error(a, b) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("original_runs", [True, False])
def test_a_cut_model_that_does_not_run_is_wrong_unless_the_original_does_not_either(
    monkeypatch: pytest.MonkeyPatch, original_runs: bool
) -> None:
    def fails(*_args: object) -> None:
        raise ModelError("it does not run")

    tracing = traced(TEXT, w1=(6, 8), w2=(8, 5))
    keep = half(tracing)
    monkeypatch.setattr(proof, "compare_runs", fails)
    if original_runs:
        assert not prove(tracing, keep, cut(tracing, keep)).holds
    else:
        monkeypatch.setattr(proof, "run", fails)
        with pytest.raises(ModelError, match="does not run"):
            prove(tracing, keep, cut(tracing, keep))
