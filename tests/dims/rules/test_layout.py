from __future__ import annotations

import numpy as np
import pytest

from tests.dims.exact import assert_cut_equals_mask, build


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("axis", [1, -3])
def test_concat_is_a_sum(axis: int) -> None:
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,4,4] y) {{
            a = Conv(x, w1)
            b = Conv(x, w2)
            c = Concat<axis={axis}>(a, b, a)
            y = Conv(c, w3)
        }}""",
        w1=(8, 3, 1, 1),
        w2=(6, 3, 1, 1),
        w3=(2, 22, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4
    assert cut.shape("w2")[0] == 3
    assert cut.shape("w3")[1] == 11


SPLITS = {
    "attribute": (11, "a, b = Split<axis=1, split=[10, 6]>(c)", {}),
    "equal, before 13": (11, "a, b = Split<axis=1>(c)", {}),
    "input": (13, "a, b = Split<axis=1>(c, sizes)", {"sizes": ints(10, 6)}),
    "equal, at 13": (13, "a, b = Split<axis=-3>(c)", {}),
    "num_outputs": (18, "a, b = Split<axis=1, num_outputs=2>(c)", {}),
    "input, at 18": (18, "a, b = Split<axis=1>(c, sizes)", {"sizes": ints(4, 12)}),
}


@pytest.mark.parametrize(("opset", "text", "sizes"), SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("sparsity", [0.5, 0.3])
def test_split_at_every_opset(
    opset: int, text: str, sizes: dict[str, np.ndarray], sparsity: float
) -> None:
    first = int(sizes["sizes"][0]) if sizes else 10 if "10" in text else 8
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,4,4] y) {{
            c = Conv(x, w)
            {text}
            d = Conv(a, w1)
            e = Relu(b)
            f = Conv(e, w2)
            y = Add(d, f)
        }}""",
        opset=opset,
        w=(16, 3, 1, 1),
        w1=(2, first, 1, 1),
        w2=(2, 16 - first, 1, 1),
        **sizes,
    )
    cut = assert_cut_equals_mask(model, sparsity)
    assert cut.shape("w")[0] == round(first * (1 - sparsity)) + round((16 - first) * (1 - sparsity))


def test_unequal_split_of_num_outputs() -> None:
    """17 in 2 parts: 9 and 8."""
    model = build(
        """(float[N,3] x) => (float[N,2] y) {
            c = MatMul(x, w)
            a, b = Split<axis=1, num_outputs=2>(c)
            d = MatMul(a, w1)
            e = MatMul(b, w2)
            y = Add(d, e)
        }""",
        opset=18,
        w=(3, 17),
        w1=(9, 2),
        w2=(8, 2),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w")[1] == cut.shape("w1")[0] + cut.shape("w2")[0] < 17


@pytest.mark.parametrize("end", [16, 2**31 - 1, 2**63 - 1, -1])
@pytest.mark.parametrize("opset", [9, 17])
def test_slices_are_parts(end: int, opset: int) -> None:
    last = 5 if end == -1 else 6
    text = """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            c = Conv(x, w)
            a = Slice%s
            b = Slice%s
            d = Conv(a, w1)
            e = Conv(b, w2)
            y = Add(d, e)
        }"""
    if opset < 10:
        text %= (
            "<axes=[1], starts=[0], ends=[10]>(c)",
            f"<axes=[1], starts=[-6], ends=[{end}]>(c)",
        )
        inputs = {}
    else:
        text %= ("(c, zero, ten, one)", "(c, six, end, one)")
        inputs = {"zero": ints(0), "ten": ints(10), "one": ints(1), "six": ints(-6)}
        inputs["end"] = ints(end)
    model = build(
        text, opset=opset, w=(16, 3, 1, 1), w1=(2, 10, 1, 1), w2=(2, last, 1, 1), **inputs
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w")[0] < 16
    assert cut.shape("w1")[1] == 5


def test_every_second_channel() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            c = Conv(x, w)
            a = Slice(c, zero, end, one, two)
            b = Slice(c, one, end, one, two)
            s = Add(a, b)
            y = Conv(s, w1)
        }""",
        w=(16, 3, 1, 1),
        w1=(2, 8, 1, 1),
        zero=ints(0),
        one=ints(1),
        two=ints(2),
        end=ints(2**31 - 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w") == (8, 3, 1, 1)


def test_a_slice_through_the_groups_of_a_shared_axis_is_still_exact() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,4,4] y) {
            c = Conv(x, w)
            a = Slice(c, zero, ten, one)
            b = Slice(c, six, end, one)
            s = Add(a, b)
            y = Conv(s, w1)
        }""",
        w=(16, 3, 1, 1),
        w1=(2, 10, 1, 1),
        zero=ints(0),
        ten=ints(10),
        one=ints(1),
        six=ints(6),
        end=ints(16),
    )
    assert_cut_equals_mask(model, strict=False)


@pytest.mark.parametrize("batch", ["0", "-1", "shape"])
def test_channel_shuffle_with_an_open_batch(batch: str) -> None:
    if batch == "shape":
        sizes = """
            s = Shape(a)
            n = Gather(s, zero)
            n1 = Unsqueeze(n, zeros)
            to = Concat<axis=0>(n1, rest)
            back = Concat<axis=0>(n1, channels)"""
        inputs = {
            "zero": np.array(0),
            "zeros": ints(0),
            "rest": ints(2, 4, 4, 4),
            "channels": ints(8, 4, 4),
        }
    else:
        sizes = ""
        inputs = {"to": ints(int(batch), 2, 4, 4, 4), "back": ints(int(batch), 8, 4, 4)}
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,4,4] y) {{
            a = Conv(x, w){sizes}
            b = Reshape(a, to)
            t = Transpose<perm=[0,2,1,3,4]>(b)
            c = Reshape(t, back)
            d = Conv<group=2>(c, w1)
            y = Conv(d, w2)
        }}""",
        w=(8, 3, 1, 1),
        w1=(8, 4, 1, 1),
        w2=(2, 8, 1, 1),
        **inputs,
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (3, 3, 4, 4)}])
    assert cut.shape("w")[0] == 4
    assert cut.shape("w2")[1] == 4


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_pixel_shuffle(mode: str) -> None:
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,8,8] y) {{
            a = Conv(x, w, b)
            d = DepthToSpace<blocksize=2, mode="{mode}">(a)
            y = Conv(d, w1)
        }}""",
        w=(24, 3, 1, 1),
        b=(24,),
        w1=(2, 6, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w")[0] == 12
    assert cut.shape("w1")[1] == 3


def test_pixel_shuffle_written_out() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,8,8] y) {
            a = Conv(x, w)
            r = Reshape(a, to)
            t = Transpose<perm=[0,1,4,2,5,3]>(r)
            d = Reshape(t, back)
            y = Conv(d, w1)
        }""",
        w=(24, 3, 1, 1),
        w1=(2, 6, 1, 1),
        to=ints(-1, 6, 2, 2, 4, 4),
        back=ints(-1, 6, 8, 8),
    )
    cut = assert_cut_equals_mask(model, others=[{"x": (2, 3, 4, 4)}])
    assert cut.shape("w")[0] == 12
    assert cut.shape("w1")[1] == 3


def test_space_to_depth() -> None:
    model = build(
        """(float[N,3,4,4] x) => (float[N,2,2,2] y) {
            a = Conv(x, w)
            d = SpaceToDepth<blocksize=2>(a)
            y = Conv(d, w1)
        }""",
        w=(6, 3, 1, 1),
        w1=(2, 24, 1, 1),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w")[0] == 3
    assert cut.shape("w1")[1] == 12


@pytest.mark.parametrize("opset", [9, 13])
def test_padding_channels(opset: int) -> None:
    pads = "Pad<pads=[0,2,0,0,0,4,0,0]>(a)" if opset < 11 else "Pad(a, pads)"
    inputs = {} if opset < 11 else {"pads": ints(0, 2, 0, 0, 0, 4, 0, 0)}
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,4,4] y) {{
            a = Conv(x, w1)
            p = {pads}
            c = Conv(x, w2)
            s = Add(p, c)
            y = Conv(s, w3)
        }}""",
        opset=opset,
        w1=(8, 3, 1, 1),
        w2=(14, 3, 1, 1),
        w3=(2, 14, 1, 1),
        **inputs,
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w1")[0] == 4
    assert cut.shape("w2")[0] == cut.shape("w3")[1] == 7


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_channels_pass_where_images_are_padded_with_themselves(mode: str) -> None:
    model = build(
        f"""(float[N,3,4,4] x) => (float[N,2,6,6] y) {{
            a = Conv(x, w1)
            p = Pad<mode="{mode}">(a, pads)
            y = Conv(p, w2)
        }}""",
        w1=(8, 3, 1, 1),
        w2=(2, 8, 1, 1),
        pads=ints(0, 0, 1, 1, 0, 0, 1, 1),
    )
    assert assert_cut_equals_mask(model).shape("w1")[0] == 4


@pytest.mark.parametrize("kind", [6, 7])
def test_bounds_and_amounts_of_which_some_vary(kind: int) -> None:
    """Half of the sequence, of half of the channels; then as much is put behind it, and as many channels again.

    Bounds of 32 bits, as TensorFlow writes them, or 64.
    """
    model = build(
        f"""(float[1,3,T] x) => (float[1,2,T] y) {{
            a = Conv(x, w1)
            sizes = Shape(a)
            t = Gather(sizes, last)
            half = Div(t, two)
            longs = Concat<axis=0>(four, half)
            ends = Cast<to={kind}>(longs)
            s = Slice(a, starts, ends, axes)
            rest = Sub(t, half)
            pads = Concat<axis=0>(before, rest)
            p = Pad(s, pads)
            y = Conv(p, w2)
        }}""",
        w1=(8, 3, 1),
        last=ints(2),
        two=ints(2),
        four=ints(4),
        starts=ints(0, 0).astype(np.int32 if kind == 6 else np.int64),
        axes=ints(1, 2).astype(np.int32 if kind == 6 else np.int64),
        before=ints(0, 0, 0, 0, 4),
        w2=(2, 8, 1),
    )
    cut = assert_cut_equals_mask(model, shapes={"x": (1, 3, 8)}, others=[{"x": (1, 3, 10)}])
    assert cut.shape("w1")[0] == 4
    assert cut.shape("w2")[1] == 4


def test_squeeze_unsqueeze_and_transpose_carry_axes() -> None:
    model = build(
        """(float[N,3,4] x) => (float[N,4,2] y) {
            a = Conv(x, w1)
            u = Unsqueeze(a, axis2)
            c = Conv(u, w2)
            s = Squeeze(c, axis2)
            t = Transpose<perm=[0,2,1]>(s)
            y = MatMul(t, w3)
        }""",
        w1=(8, 3, 1),
        w2=(10, 8, 1, 1),
        w3=(10, 2),
        axis2=ints(2),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (5, 4, 1, 1)
    assert cut.shape("w3") == (5, 2)


def test_reshape_of_version_1_has_the_shape_as_attribute() -> None:
    model = build(
        """(float[1,3,4,4] x) => (float[1,2] y) {
            a = Conv<kernel_shape=[1,1]>(x, w1)
            r = Reshape(a, to)
            y = Gemm(r, w2, b)
        }""",
        opset=8,
        w1=(8, 3, 1, 1),
        w2=(128, 2),
        b=(2,),
        to=ints(1, 128),
    )
    cut = assert_cut_equals_mask(model)
    assert cut.shape("w2") == (64, 2)
