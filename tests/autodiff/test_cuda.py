"""The gradients of ONNX's own test cases on the GPU are those on the CPU, to float32's tolerance."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import pytest
from adjoint import Array, Feeds, Projection
from test_corpus import listed, load_cases, prepared

from onnxprune.autodiff import CrossEntropy, gradient
from onnxprune.graph import load
from onnxprune.runtime import providers
from onnxprune.runtime.sessions import run, session
from tests.models import DIGITS

RELATIVE = 1e-3
CASES = sorted(name for name in load_cases() if listed(name) is None)


def gradients(name: str, provider: str) -> list[Array]:
    """Of a fixed projection of all outputs, with respect to all floating-point inputs."""
    model, feeds = prepared(load_cases()[name])
    names = [v.name or "" for v in model.graph.outputs]
    ys = dict(zip(names, run(session(model), feeds), strict=True))
    outputs = [n for n, y in ys.items() if isinstance(y, np.ndarray) and y.dtype.kind == "f"]
    wrt = [n for n, x in feeds.items() if isinstance(x, np.ndarray) and x.dtype.kind == "f"]
    backward = gradient(model, Projection(outputs), wrt, feeds=feeds)
    return run(session(backward, (provider,)), {**feeds, **directions(ys, outputs)})[1:]


def directions(ys: dict[str, Array], outputs: Sequence[str]) -> Feeds:
    random = np.random.default_rng(7)
    return {f"dy.{n}": np.asarray(random.normal(size=ys[n].shape), ys[n].dtype) for n in outputs}


def differ(name: str, provider: str) -> str | None:
    """How the gradients of a case on a provider differ from those on the CPU, None if they do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pairs = zip(gradients(name, "cpu"), gradients(name, provider), strict=True)
    for expected, found in pairs:
        scale = max(float(np.linalg.norm(expected.astype("d"))), 1e-3)
        error = float(np.linalg.norm(found.astype("d") - expected.astype("d"))) / scale
        if not error <= RELATIVE:
            return f"{error:.1e} apart"
    return None


def test_a_case_agrees_with_itself() -> None:
    assert differ("matmul_3d", "cpu") is None


def test_the_cases_on_cuda_are_those_on_the_cpu() -> None:
    if "cuda" not in providers.available():
        pytest.skip("no CUDA provider: onnxruntime here has none, or there is no device")
    found = {name: differ(name, "cuda") for name in CASES}
    assert not {name: problem for name, problem in found.items() if problem is not None}


def test_a_gradient_of_a_model_on_cuda() -> None:
    if "cuda" not in providers.available():
        pytest.skip("no CUDA provider: onnxruntime here has none, or there is no device")
    model = load(DIGITS / "digits_resnet.onnx")
    names = [n for n, v in model.graph.initializers.items() if v.dtype == ir.DataType.FLOAT]
    backward = gradient(model, CrossEntropy(model.graph.outputs[0].name or ""), names)
    data = np.load(DIGITS / "digits_calib.npz")
    feed = {"image": data["image"][:8], "labels": data["labels"][:8]}
    for a, b in zip(
        run(session(backward), feed), run(session(backward, ("cuda",)), feed), strict=True
    ):
        np.testing.assert_allclose(b, a, rtol=1e-2, atol=1e-4 * float(np.abs(a).max()))
