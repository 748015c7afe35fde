from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


CORE = """
    q1 = Reshape(q, heads)
    k1 = Reshape(k, heads)
    v1 = Reshape(v, heads)
    q2 = Transpose<perm=[0,2,1,3]>(q1)
    k2 = Transpose<perm=[0,2,3,1]>(k1)
    v2 = Transpose<perm=[0,2,1,3]>(v1)
    l = MatMul(q2, k2)
    s = Mul(l, scale)
    p = Softmax<axis=-1>(s)
    o = MatMul(p, v2)
    o1 = Transpose<perm=[0,2,1,3]>(o)
    o2 = Reshape(o1, flat)
    y = MatMul(o2, wo)
"""


@pytest.mark.parametrize("batch", [0, -1])
def test_separate_projections(batch: int) -> None:
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,6] y) {{
            q0 = MatMul(x, wq)
            q = Add(q0, bq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            {CORE}
        }}""",
        wq=(6, 16),
        bq=(16,),
        wk=(6, 16),
        wv=(6, 16),
        wo=(16, 6),
        heads=ints(batch, 0 if batch else -1, 4, 4),
        flat=ints(0, 0, 16),
        scale=np.float32(0.5),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("wq")[1] == cut.shape("wk")[1] < 16
    assert cut.shape("wv")[1] == cut.shape("wo")[0] < 16


@pytest.mark.parametrize("how", ["split", "gather", "slice"])
def test_one_projection_for_queries_keys_and_values(how: str) -> None:
    text = {
        "split": "a, b, c = Split<axis=2>(f, sizes)",
        "gather": """
            g = Reshape(f, three)
            h = Transpose<perm=[2,0,1,3]>(g)
            a = Gather(h, i0)
            b = Gather(h, i1)
            c = Gather(h, i2)""",
        "slice": """
            a = Slice(f, e0, e1, axis)
            b = Slice(f, e1, e2, axis)
            c = Slice(f, e2, e3, axis)""",
    }[how]
    used = {
        "split": {"sizes": ints(16, 16, 16)},
        "gather": {"three": ints(0, 0, 3, 16)} | {f"i{k}": np.array(k) for k in range(3)},
        "slice": {"axis": ints(2)} | {f"e{k}": ints(16 * k) for k in range(4)},
    }[how]
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,6] y) {{
            f0 = MatMul(x, w)
            f = Add(f0, bias)
            {text}
            q = Identity(a)
            k = Identity(b)
            v = Identity(c)
            {CORE}
        }}""",
        w=(6, 48),
        bias=(48,),
        wo=(16, 6),
        heads=ints(0, 0, 4, 4),
        flat=ints(0, 0, 16),
        scale=np.float32(0.5),
        **used,
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("w")[1] < 48
    assert cut.shape("w")[1] == cut.shape("bias")[0]
    assert cut.shape("wo")[0] < 16


def test_sizes_and_scale_computed_when_the_model_runs() -> None:
    """What torch.onnx writes for open batch and sequence: Shape, Gather, Concat, Reshape, Sqrt of the width."""
    model = build(
        """(float[N,T,6] x) => (float[N,T,6] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            shape = Shape(x)
            n = Gather(shape, i0)
            t = Gather(shape, i1)
            n1 = Unsqueeze(n, ax)
            t1 = Unsqueeze(t, ax)
            heads = Concat<axis=0>(n1, t1, four, minus)
            q1 = Reshape(q, heads)
            k1 = Reshape(k, heads)
            v1 = Reshape(v, heads)
            q2 = Transpose<perm=[0,2,1,3]>(q1)
            k2 = Transpose<perm=[0,2,3,1]>(k1)
            v2 = Transpose<perm=[0,2,1,3]>(v1)
            s2 = Shape(q2)
            last = Gather(s2, im1)
            d = Cast<to=1>(last)
            root = Sqrt(d)
            l = MatMul(q2, k2)
            s = Div(l, root)
            p = Softmax<axis=-1>(s)
            o = MatMul(p, v2)
            o1 = Transpose<perm=[0,2,1,3]>(o)
            hd = Mul(four, last)
            flat = Concat<axis=0>(n1, t1, hd)
            o2 = Reshape(o1, flat)
            y = MatMul(o2, wo)
        }""",
        wq=(6, 16),
        wk=(6, 16),
        wv=(6, 16),
        wo=(16, 6),
        i0=np.array(0),
        i1=np.array(1),
        im1=np.array(-1),
        ax=ints(0),
        four=ints(4),
        minus=ints(-1),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("wq")[1] < 16
    assert cut.shape("wo")[0] < 16


def test_grouped_queries_written_out() -> None:
    """2 heads of keys and values for 4 of queries, repeated by Unsqueeze, Expand and Reshape."""
    model = build(
        """(float[N,T,6] x) => (float[N,T,6] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            q1 = Reshape(q, qh)
            k1 = Reshape(k, kh)
            v1 = Reshape(v, kh)
            q2 = Transpose<perm=[0,2,1,3]>(q1)
            k2 = Transpose<perm=[0,2,1,3]>(k1)
            v2 = Transpose<perm=[0,2,1,3]>(v1)
            k3 = Unsqueeze(k2, ax)
            v3 = Unsqueeze(v2, ax)
            k4 = Expand(k3, twice)
            v4 = Expand(v3, twice)
            sh = Shape(k2)
            n = Slice(sh, c0, c1)
            t = Slice(sh, c2, c3)
            to = Concat<axis=0>(n, c4, t, c4)
            k5 = Reshape(k4, to)
            v5 = Reshape(v4, to)
            k6 = Transpose<perm=[0,1,3,2]>(k5)
            l = MatMul(q2, k6)
            p = Softmax<axis=-1>(l)
            o = MatMul(p, v5)
            o1 = Transpose<perm=[0,2,1,3]>(o)
            o2 = Reshape(o1, flat)
            y = MatMul(o2, wo)
        }""",
        wq=(6, 16),
        wk=(6, 8),
        wv=(6, 8),
        wo=(16, 6),
        qh=ints(0, 0, 4, 4),
        kh=ints(0, 0, 2, 4),
        ax=ints(2),
        twice=ints(1, 1, 2, 1, 1),
        flat=ints(0, 0, 16),
        c0=ints(0),
        c1=ints(1),
        c2=ints(2),
        c3=ints(3),
        c4=ints(4),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("wq")[1] < 16
    assert cut.shape("wv")[1] < 8
    assert cut.shape("wo")[0] < 16


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("packed", [True, False])
def test_the_attention_op(kv_heads: int, packed: bool) -> None:
    kv = 4 * kv_heads
    if packed:
        text = f"o2 = Attention<q_num_heads=4, kv_num_heads={kv_heads}>(q, k, v)"
        used = {}
    else:
        text = """
            q1 = Reshape(q, qh)
            k1 = Reshape(k, kh)
            v1 = Reshape(v, kh)
            q2 = Transpose<perm=[0,2,1,3]>(q1)
            k2 = Transpose<perm=[0,2,1,3]>(k1)
            v2 = Transpose<perm=[0,2,1,3]>(v1)
            o = Attention(q2, k2, v2)
            o1 = Transpose<perm=[0,2,1,3]>(o)
            o2 = Reshape(o1, flat)"""
        used = {"qh": ints(0, 0, 4, 4), "kh": ints(0, 0, kv_heads, 4), "flat": ints(0, 0, 16)}
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,6] y) {{
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            {text}
            y = MatMul(o2, wo)
        }}""",
        opset=23,
        ir_version=11,
        wq=(6, 16),
        wk=(6, kv),
        wv=(6, kv),
        wo=(16, 6),
        **used,
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("wq")[1] < 16
    assert cut.shape("wv")[1] < kv
    assert cut.shape("wo")[0] < 16


def test_fused_multi_head_attention() -> None:
    model = build(
        """(float[N,T,6] x) => (float[N,T,6] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            v = MatMul(x, wv)
            o = com.microsoft.MultiHeadAttention<num_heads=4>(q, k, v, b)
            y = MatMul(o, wo)
        }""",
        wq=(6, 16),
        wk=(6, 16),
        wv=(6, 16),
        b=(48,),
        wo=(16, 6),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("wq")[1] < 16
    assert cut.shape("wo")[0] < 16
    assert cut.shape("b")[0] == 2 * cut.shape("wq")[1] + cut.shape("wv")[1]


@pytest.mark.parametrize("sizes", ["", ", qkv_hidden_sizes=[16, 16, 24]"])
def test_fused_attention(sizes: str) -> None:
    v = 24 if sizes else 16
    model = build(
        f"""(float[N,T,6] x) => (float[N,T,6] y) {{
            a = MatMul(x, w0)
            o = com.microsoft.Attention<num_heads=4{sizes}>(a, w, b)
            y = MatMul(o, wo)
        }}""",
        w0=(6, 8),
        w=(8, 32 + v),
        b=(32 + v,),
        wo=(v, 6),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 7, 6)}])
    assert cut.shape("w0") == (6, 4)
    assert cut.shape("w")[1] == cut.shape("b")[0] < 32 + v
    assert cut.shape("wo")[0] < v


@pytest.mark.parametrize("packed", [True, False])
def test_group_query_attention(packed: bool) -> None:
    """Heads of 16 lose 8; for a sequence of 1, the total length is 1."""
    projections = """
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        v = MatMul(x, wv)"""
    text = f"{'q = MatMul(x, w)' if packed else projections}\n"
    used = {"w": (6, 128)} if packed else {"wq": (6, 64), "wk": (6, 32), "wv": (6, 32)}
    model = build(
        f"""(float[N,1,6] x) => (float[N,1,6] y) {{
            {text}
            o, pk, pv = com.microsoft.GroupQueryAttention<num_heads=4, kv_num_heads=2>(
                q, {"," if packed else "k, v"}, , , before, total)
            y = MatMul(o, wo)
        }}""",
        before=np.zeros(1, np.int32),
        total=np.array(1, np.int32),
        wo=(64, 6),
        **used,
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("wo")[0] < 64
    assert cut.shape("wo")[0] % 8 == 0
    assert all(cut.shape(name)[1] < shape[1] for name, shape in used.items())


@pytest.mark.parametrize("rank", [3, 4])
def test_rotary_positions_pass_heads(rank: int) -> None:
    """Four heads, eight wide."""
    split = """
        r = Reshape(a, sizes)
        t = Transpose<perm=[0,2,1,3]>(r)
        u = RotaryEmbedding(t, cos, sin)
        v = Transpose<perm=[0,2,1,3]>(u)
        e = Reshape(v, merged)"""
    whole = "e = RotaryEmbedding<num_heads=4>(a, cos, sin)"
    used = {"sizes": np.array([0, 0, 4, 8]), "merged": np.array([0, 0, -1])} if rank == 4 else {}
    model = build(
        f"""(float[1,3,6] x) => (float[1,3,5] y) {{
            a = MatMul(x, w1)
            {split if rank == 4 else whole}
            y = MatMul(e, w2)
        }}""",
        opset=23,
        w1=(6, 32),
        w2=(32, 5),
        cos=(1, 3, 4),
        sin=(1, 3, 4),
        **used,
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (6, 16)


@pytest.mark.parametrize("attributes", ["", "<num_heads=0>", "<num_heads=4>"])
def test_fused_rotary_positions_pass_heads(attributes: str) -> None:
    model = build(
        f"""(float[1,3,6] x) => (float[1,3,5] y) {{
            a = MatMul(x, w1)
            e = com.microsoft.RotaryEmbedding{attributes}(a, positions, cos, sin)
            y = MatMul(e, w2)
        }}""",
        w1=(6, 32),
        w2=(32, 5),
        positions=np.arange(3)[None],
        cos=(9, 4),
        sin=(9, 4),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1") == (6, 16)
