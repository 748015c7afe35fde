"""Zeroed weights, and survivors that make up for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import OptionError
from onnxprune.options import NM
from onnxprune.recover.sparse import BLOCK, DAMPING, Fraction, sparse_rows
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS

CALIBRATION = DIGITS / "digits_calib.npz"
RANDOM = np.random.default_rng(0)


def problem(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """A weight, and the second moments of inputs that hang together."""
    few = RANDOM.standard_normal((4 * columns, columns // 3)) @ RANDOM.standard_normal(
        (columns // 3, columns)
    )
    x = few + 0.3 * RANDOM.standard_normal(few.shape)
    return RANDOM.standard_normal((rows, columns)), x.T @ x / len(x)


def error(change: np.ndarray, moment: np.ndarray) -> float:
    return float(np.einsum("mk,kl,ml->", change, moment, change))


def test_the_last_columns_make_up_for_the_first_as_least_squares_does() -> None:
    w, moment = problem(3, 12)
    mask = np.zeros(w.shape, bool)
    mask[:, :4] = True
    found, zeros = sparse_rows(w, moment, mask, 12)
    np.testing.assert_array_equal(zeros, mask)
    damped = moment + DAMPING * np.diagonal(moment).mean() * np.eye(12)
    best = np.linalg.solve(damped[4:, 4:], (w @ damped)[:, 4:].T).T
    np.testing.assert_allclose(found[:, 4:], best, rtol=1e-6)
    assert (found[:, :4] == 0).all()


@pytest.mark.parametrize("columns", [40, 2 * BLOCK + 8])
@pytest.mark.parametrize("pattern", [Fraction(0.5), NM(2, 4)])
def test_choosing_and_compensating_beat_zeroing_the_smallest(pattern: Any, columns: int) -> None:
    w, moment = problem(6, columns)
    found, mask = sparse_rows(w, moment, pattern, columns)
    assert mask.mean() == pytest.approx(0.5, abs=0.01)
    assert (found[mask] == 0).all()
    assert (found[~mask] != 0).all()
    smallest, _ = sparse_rows(w, np.eye(columns), pattern, columns)  # nothing to make up with
    assert error(found - w, moment) < error(smallest - w, moment)


@pytest.mark.parametrize("run", [7, 14, 8])
def test_groups_end_with_their_run(run: int) -> None:
    w, moment = problem(5, 2 * run)
    _, mask = sparse_rows(w, moment, NM(1, 4), run)
    for start in range(0, 2 * run, run):
        for k in range(start, start + run, 4):
            group = mask[:, k : min(k + 4, start + run)]
            np.testing.assert_array_equal((~group).sum(1), 1)


def test_what_is_zero_already_counts_and_stays() -> None:
    w, moment = problem(4, 20)
    w[:, ::4] = 0
    found, mask = sparse_rows(w, moment, Fraction(0.25), 20)
    assert mask[:, ::4].all()
    np.testing.assert_array_equal(found, w)


def test_what_is_zero_stays_where_the_same_share_falls_otherwise_on_the_blocks() -> None:
    """As in a second step that leaves a layer with the zeros that the first gave it."""
    w, moment = problem(1, 3 * BLOCK + 5)
    _, first = sparse_rows(w, moment, Fraction(0.5), w.shape[1])
    again, second = sparse_rows(np.where(first, 0, w), moment, Fraction(first.mean()), w.shape[1])
    np.testing.assert_array_equal(second, first)
    assert not again[first].any()


def test_inputs_that_are_never_seen_cost_nothing() -> None:
    found, mask = sparse_rows(np.ones((2, 8)), np.zeros((8, 8)), Fraction(0.5), 8)
    assert np.isfinite(found).all()
    assert mask.sum() == 8


def weights(path: Path) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def accuracy(path: Path) -> float:
    test = np.load(DIGITS / "digits.npz")
    (logits,) = run(session(path), {"image": test["image"]})
    return float((logits.argmax(1) == test["labels"]).mean())


def prune(out: Path, model: str, **options: Any) -> Any:
    quick = {"check_latency": False, "check_drift": False}
    return onnxprune.prune(
        DIGITS / f"digits_{model}.onnx", out, data=CALIBRATION, **quick, **options
    )


@pytest.mark.parametrize("model", ["resnet", "vit", "lstm"])
@pytest.mark.parametrize("granularity", ["weight", "2:4"])
def test_with_data_it_is_the_default_and_keeps_more(
    model: str, granularity: str, tmp_path: Path
) -> None:
    found = {}
    amount = {"sparsity": 0.6} if granularity == "weight" else {}
    for criterion in ("auto", "magnitude"):
        out = tmp_path / f"{criterion}.onnx"
        report = prune(out, model, granularity=granularity, criterion=criterion, **amount)
        found[criterion] = accuracy(out)
        if criterion == "auto":
            assert report.options["criterion"] == "obs"
            assert report.options["recover"] == "lstsq"
    assert found["auto"] >= found["magnitude"]
    if granularity == "weight" and model == "resnet":
        assert found["auto"] > found["magnitude"] + 0.1


def test_two_of_four_along_the_input_channels_of_every_kernel_position(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    prune(out, "resnet", granularity="2:4")
    for name, w in weights(out).items():
        if w.ndim == 4 and w.shape[1] % 4 == 0:
            groups = w.reshape(len(w), -1, 4, *w.shape[2:])
            assert ((groups != 0).sum(2) <= 2).all(), name


def test_a_given_mask_is_kept_and_the_others_are_fitted(tmp_path: Path) -> None:
    plain, fitted = tmp_path / "plain.onnx", tmp_path / "fitted.onnx"
    options = {"granularity": "block:4x1", "sparsity": 0.5, "criterion": "magnitude"}
    prune(plain, "resnet", recover="none", **options)
    prune(fitted, "resnet", recover="lstsq", **options)
    before, after = weights(plain), weights(fitted)
    for name, w in before.items():
        if w.ndim > 1:
            np.testing.assert_array_equal(after[name] == 0, w == 0)
    assert accuracy(fitted) > accuracy(plain)


def test_without_recovery_survivors_are_the_originals(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    prune(out, "resnet", granularity="2:4", criterion="obs", recover="none")
    original = weights(DIGITS / "digits_resnet.onnx")
    for name, w in weights(out).items():
        assert ((w == 0) | (w == original[name])).all()


def test_layers_that_matter_more_keep_more_and_the_model_has_as_many_zeros(tmp_path: Path) -> None:
    found, shares = {}, {}
    for scope in ("auto", "layer"):
        out = tmp_path / f"{scope}.onnx"
        report = prune(out, "resnet", granularity="weight", sparsity=0.8, scope=scope)
        sizes = np.array([row.size for row in report.tensors])
        assert report.after.zeros == pytest.approx(0.8 * sizes.sum(), rel=0.01)
        shares[scope] = np.array([row.zeroed for row in report.tensors]) / sizes
        found[scope] = accuracy(out)
    assert np.ptp(shares["layer"]) < 0.05 < np.ptp(shares["auto"])
    assert found["auto"] > found["layer"] + 0.1


def test_step_by_step_ends_at_the_same_sparsity(tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    report = prune(out, "resnet", granularity="weight", sparsity=0.6, steps=2, recover="lstsq")
    assert report.after.zeros == pytest.approx(
        0.6 * sum(row.size for row in report.tensors), rel=0.02
    )


def test_what_it_cannot_choose_is_refused() -> None:
    with pytest.raises(OptionError, match="does not go with granularity"):
        onnxprune.PruneOptions.of(criterion="obs", data="x.npz", granularity="block:4x1")
    chosen = onnxprune.PruneOptions.of(data="x.npz", granularity="block:4x1")
    assert (chosen.criterion, chosen.recover) == ("magnitude", "none")
