"""Made-up samples fit the model, repeat themselves, and look like photographs to a spectrum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import DataError
from onnxprune.runtime.dataset import hold_aside
from onnxprune.runtime.scale import input_scale
from onnxprune.runtime.sessions import run, session
from onnxprune.runtime.synthetic import image_noise, synthetic
from tests.dims.exact import build
from tests.loaded import loaded
from tests.models import DIGITS


def test_the_power_of_noise_falls_as_that_of_photographs() -> None:
    images = image_noise(64, 3, 64, 64, seed=1)
    assert images.std() == pytest.approx(1, abs=1e-3)
    power = (np.abs(np.fft.rfft2(images)) ** 2).mean((0, 1))[0, 1:]
    slope = np.polyfit(np.log(np.arange(1, 31)), np.log(power[:30]), 1)[0]
    assert -2.8 < slope < -1.6
    alike = np.corrcoef(images.transpose(1, 0, 2, 3).reshape(3, -1))
    assert alike.min() > 0.7


def test_the_same_seed_gives_the_same_samples() -> None:
    model = loaded(
        "(float[N,3,16,16] x) => (float[N,4,16,16] y) { y = Conv(x, w) }", w=(4, 3, 1, 1)
    )
    first, second, other = (synthetic(model, seed, count=4).inputs["x"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, second)
    assert not np.array_equal(first, other)


def test_a_model_that_takes_long_gets_fewer() -> None:
    text = "(float[N,3,{0},{0}] x) => (float[N,128,{0},{0}] y) {{ y = Conv<pads=[3,3,3,3]>(x, w) }}"
    small, large = (loaded(text.format(size), w=(128, 3, 7, 7)) for size in (32, 512))
    assert len(synthetic(small)) == 200
    assert len(synthetic(large)) == 4e11 // (512**2 * 128 * 3 * 7 * 7)


def test_tokens_are_rows_of_their_table_and_masks_are_ones() -> None:
    model = loaded(
        """(int64[N,L] ids, int64[N,L] mask) => (float[N,L,4] y) {
            e = Gather(table, ids)
            m = Cast<to=1>(mask)
            u = Unsqueeze(m, two)
            y = Mul(e, u)
        }""",
        table=(7, 4),
        two=np.array([2], "i8"),
    )
    data = synthetic(model, count=50)
    assert set(np.unique(data.inputs["ids"])) == set(range(7))
    assert set(np.unique(data.inputs["mask"])) == {1}
    assert len(data) == 50
    assert not data.stacked


@pytest.mark.parametrize(
    ("shape", "entries"), [("N,3,16,16", (10, 3, 16, 16)), ("4,16,16,1", (12, 16, 16, 1))]
)
def test_images_of_both_layouts_and_of_fixed_batches(shape: str, entries: tuple[int, ...]) -> None:
    model = loaded(f"(float[{shape}] x) => (float[{shape}] y) {{ y = Relu(x) }}")
    data = synthetic(model, count=10)
    assert data.inputs["x"].shape == entries
    assert "1/f" in data.note


def test_some_of_a_large_fixed_batch_can_be_held_aside() -> None:
    model = loaded("(float[300,6] x) => (float[300,4] y) { y = MatMul(x, w) }", w=(6, 4))
    data = synthetic(model)
    assert [len(part) for part in hold_aside(data, 0.25, 0)] == [900, 300]
    with pytest.raises(DataError, match=r"300 samples are too few .* the model takes 300 at once"):
        hold_aside(data.take(300), 0.25, 0)


def test_a_fixed_axis_that_the_output_does_not_have_is_left_whole() -> None:
    model = loaded(
        "(float[48] x) => (float[1,4] y) { r = Reshape(x, s)\n y = MatMul(r, w) }",
        s=np.array([1, 48], "i8"),
        w=(48, 4),
    )
    data = synthetic(model, count=5)
    assert data.stacked
    assert data.inputs["x"].shape == (5, 48)


def test_an_axis_that_is_not_of_samples_is_left_whole() -> None:
    text = "(float[T,3] x) => (float[3,3] y) { t = Transpose(x)\n y = MatMul(t, x) }"
    data = synthetic(loaded(text), count=5)
    assert data.stacked
    assert len(data) == 5


def test_the_scale_is_read_off_the_first_normalisation() -> None:
    rng = np.random.default_rng(0)
    images = image_noise(32, 3, 32, 32, seed=2)
    mean, spread = np.array([5.0, -3.0, 1.0]), 7.0
    w = rng.standard_normal((16, 3, 3, 3)).astype("f4")
    convolve = session(
        build(
            "(float[N,3,32,32] x) => (float[N,16,30,30] y) { y = Conv(x, w) }", w=w
        ).SerializeToString()
    )  # type: ignore[arg-type]
    (y,) = run(convolve, {"x": (images * spread + mean.reshape(3, 1, 1)).astype("f4")})
    model = loaded(
        """(float[N,3,32,32] x) => (float[N,16,30,30] y) {
            a = Conv(x, w)
            y = BatchNormalization(a, one, one, m, v)
        }""",
        w=w,
        one=np.ones(16, "f4"),
        m=y.mean((0, 2, 3)),
        v=y.var((0, 2, 3)),
    )
    found = input_scale(model.graph.inputs[0], images)
    assert (np.abs(found.mean - mean) / spread).max() < 0.1
    assert found.spread == pytest.approx(spread, rel=0.05)


def test_made_up_samples_serve_where_there_are_none(tmp_path: Path) -> None:
    test = np.load(DIGITS / "digits.npz")
    right = {}
    for data in (None, "synthetic"):
        out = tmp_path / "out.onnx"
        report = onnxprune.prune(
            DIGITS / "digits_resnet.onnx",
            out,
            data=data,
            target="macs=0.8",
            round_to=1,
            check_latency=False,
        )
        onnx.checker.check_model(out)
        (logits,) = run(session(out), {"image": test["image"]})
        right[data] = float((logits.argmax(1) == test["labels"]).mean())
        assert any("made-up samples" in note for note in report.notes) == (data is not None)
    assert right["synthetic"] > right[None]
