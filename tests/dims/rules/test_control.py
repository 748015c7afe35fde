from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from onnxprune.dims import registry
from tests.dims.exact import assert_cut_equals_mask, build


def test_weights_outside_and_inside_the_branches_of_if() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            total = ReduceSum<keepdims=0>(a)
            c = Greater(total, zero)
            b = If (c) <
                then_branch = yes () => (float[N,8] t) {
                    t0 = Add(a, b1)
                    t = Relu(t0)
                },
                else_branch = no () => (float[N,8] e) {
                    e0 = MatMul(a, w2)
                    e = Add(e0, b1)
                }>
            y = MatMul(b, w3)
        }""",
        w1=(6, 8),
        zero=np.float32(0),
        b1=(8,),
        w2=(8, 8),
        w3=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (6, 4)
    assert cut.shape("w2") == (4, 4)
    assert cut.shape("w3") == (4, 5)


def test_a_branch_for_another_rank_keeps_its_channels() -> None:
    """What PyTorch's `squeeze` becomes where the size of the axis is open."""
    model = build(
        """(float[N,3,T] x) => (float[N,5] y) {
            a = Conv(x, w1)
            sizes = Shape(a)
            t = Gather(sizes, two)
            c = Equal(t, one)
            b = If (c) <
                then_branch = yes () => (float[N,8] s) { s = Squeeze(a, last) },
                else_branch = no () => (float[N,8,T] i) { i = Identity(a) }>
            y = MatMul(b, w2)
        }""",
        w1=(8, 3, 1),
        two=np.array(2),
        one=np.array(1),
        last=np.array([2]),
        w2=(8, 5),
    )
    cut = assert_cut_equals_mask(model, shapes={"x": (2, 3, 1)}, others=[{"x": (4, 3, 1)}])
    assert cut.shape("w1") == (4, 3, 1)
    assert cut.shape("w2") == (4, 5)


def test_hidden_units_inside_a_branch() -> None:
    model = build(
        """(float[N,6] x, bool c) => (float[N,5] y) {
            y = If (c) <
                then_branch = yes () => (float[N,5] t) {
                    w1 = Constant<value = float[1,4] {1, 2, 3, 4}>()
                    s = ReduceSum(x, last)
                    a = MatMul(s, w1)
                    r = Relu(a)
                    t = MatMul(r, w2)
                },
                else_branch = no () => (float[N,5] e) {
                    e = MatMul(x, w3)
                }>
        }""",
        last=np.array([1]),
        w2=(4, 5),
        w3=(6, 5),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (1, 2)
    assert cut.shape("w2") == (2, 5)


def test_a_state_carried_by_a_loop() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            b = Loop (three, , a) <
                body = step (int64 i, bool go, float[N,8] h) => (bool more, float[N,8] g) {
                    more = Identity(go)
                    m = MatMul(h, w2)
                    g = Tanh(m)
                }>
            y = MatMul(b, w3)
        }""",
        three=np.array(3),
        w1=(6, 8),
        w2=(8, 8),
        w3=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w2") == (4, 4)
    assert cut.shape("w3") == (4, 5)


def test_a_state_and_an_output_of_scan() -> None:
    model = build(
        """(float[T,N,6] x) => (float[T,N,5] y, float[N,5] z) {
            a = MatMul(x, w1)
            s0 = ReduceSum<keepdims=0>(a, first)
            last, all = Scan<
                num_scan_inputs=1,
                body = step (float[N,8] h, float[N,8] u) => (float[N,8] g, float[N,8] o) {
                    m = MatMul(h, w2)
                    n = Add(m, u)
                    g = Tanh(n)
                    o = Identity(g)
                }>(s0, a)
            y = MatMul(all, w3)
            z = MatMul(last, w4)
        }""",
        first=np.array([0]),
        w1=(6, 8),
        w2=(8, 8),
        w3=(8, 5),
        w4=(8, 5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 2, 6)}])
    assert cut.shape("w2") == (4, 4)
    assert cut.shape("w3") == cut.shape("w4") == (4, 5)


def test_local_functions_are_seen_through() -> None:
    function = helper.make_function(
        "local",
        "Linear",
        ["a", "w", "b"],
        ["c"],
        [
            helper.make_node("MatMul", ["a", "w"], ["m"]),
            helper.make_node("Add", ["m", "b"], ["c"]),
        ],
        [helper.make_opsetid("", 17)],
    )
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = local.Linear(x, w1, b1)
            r = Relu(a)
            y = local.Linear(r, w2, b2)
        }""",
        functions=[function],
        w1=(6, 8),
        b1=(8,),
        w2=(8, 5),
        b2=(5,),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w1") == (6, 4)
    assert cut.shape("b1") == (4,)
    assert cut.shape("w2") == (4, 5)


def test_what_freezes_in_one_branch_is_frozen_outside() -> None:
    model = build(
        """(float[N,6] x, bool c) => (float[N,5] y) {
            a = MatMul(x, w1)
            b = If (c) <
                then_branch = yes () => (float[N,8] t) {
                    t = Softmax(a)
                },
                else_branch = no () => (float[N,8] e) {
                    e = Relu(a)
                }>
            h = MatMul(b, w2)
            r = Relu(h)
            y = MatMul(r, w3)
        }""",
        w1=(6, 8),
        w2=(8, 10),
        w3=(10, 5),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (6, 8)
    assert cut.shape("w3") == (5, 5)


def test_a_loop_in_a_loop_that_reads_a_value_from_outside_both() -> None:
    model = build(
        """(float[N,6] x) => (float[N,5] y) {
            a = MatMul(x, w1)
            b, all = Loop (three, , a) <
                body = outer (int64 i, bool go, float[N,8] h) => (bool more, float[N,8] g, float[N,8] o) {
                    more = Identity(go)
                    g = Loop (two, , h) <
                        body = inner (int64 j, bool go2, float[N,8] h2) => (bool more2, float[N,8] g2) {
                            more2 = Identity(go2)
                            m = MatMul(h2, w2)
                            r = Relu(m)
                            g2 = Add(r, a)
                        }>
                    o = Mul(g, k)
                }>
            q = MatMul(b, w3)
            z = ReduceMean<axes=[0], keepdims=0>(all)
            p = MatMul(z, w4)
            y = Add(q, p)
        }""",
        three=np.array(3),
        two=np.array(2),
        w1=(6, 8),
        w2=(8, 8),
        w3=(8, 5),
        w4=(8, 5),
        k=(8,),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 6)}])
    assert cut.shape("w2") == (4, 4)
    assert cut.shape("k") == (4,)


def scan_that_reads_from_outside() -> onnx.ModelProto:
    """Along the second axis; its body reads a value and a weight from outside."""
    return build(
        """(float[2,3,6] x) => (float[2,3,5] y) {
            h = MatMul(x, w0)
            a = MatMul(h, w1)
            m = ReduceSum<keepdims=0>(a, first)
            b = Scan<
                num_scan_inputs=1, scan_input_axes=[1], scan_output_axes=[1],
                body = step (float[2,8] u) => (float[2,8] o) {
                    p = MatMul(u, w2)
                    q = Add(p, shared)
                    o = Add(q, m)
                }>(a)
            c = Mul(x0, b)
            d = MatMul(c, w3)
            e = Add(d, shared)
            y = MatMul(e, w4)
        }""",
        first=np.array([0, 1]),
        w0=(6, 10),
        w1=(10, 8),
        w2=(8, 8),
        shared=(8,),
        x0=(8,),
        w3=(8, 8),
        w4=(8, 5),
    )


def test_scanned_along_another_axis_than_the_first() -> None:
    cut = assert_cut_equals_mask(scan_that_reads_from_outside())
    assert cut.shape("w1") == (5, 4)
    assert cut.shape("w2") == (4, 4)
    assert cut.shape("x0") == (4,)


def test_what_a_body_reads_is_frozen_with_its_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._RULES, ("", "Scan"))
    cut = assert_cut_equals_mask(scan_that_reads_from_outside())
    assert cut.shape("w1") == (5, 8)
    assert cut.shape("w2") == (8, 8)
    assert cut.shape("w4") == (4, 5)
    assert cut.shape("shared") == (8,)
