"""Real models: the gradient of every weight against a directional derivative along it.

The derivative is taken in float32 on onnxruntime, the only thing that runs all of these files. What
it can tell is limited by the rounding of the outputs, divided by the step, and by the kinks (ReLU,
pooling) that the step crosses, whose share of the error falls with the step. So weights whose
derivative drowns in the rounding are left out, of several steps the best counts, the median over a
model's weights must agree closely, and one weight in ten may disagree. The tight bounds are those of
the rules' own tests, in float64.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from adjoint import Projection

from onnxprune.autodiff import gradient
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import clone, inline, load, weights
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.sessions import run, session

ZOO = Path(__file__).parents[3] / "shared" / "zoo"
FILES = sorted(ZOO.glob("*.onnx"))
STEPS = (1e-3, 1e-4, 1e-5)
MOST_WEIGHTS = 12  # checked one by one, spread over the model


def constant_weights(path: Path) -> ir.Model:
    """The model with functions inlined and no weight an overridable input."""
    model = clone(inline(load(path)))
    for name, value in list(model.graph.initializers.items()):
        if value.is_graph_input():
            model.graph.inputs.remove(value)
            model.graph.initializers[name] = value
    model.ir_version = max(4, model.ir_version or 0)
    return model


def float_weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {
        w.name: w.array()
        for w in weights(model)
        if w.dtype == ir.DataType.FLOAT
        and w.graph is model.graph
        and w.kind != "constant_of_shape"
        and len(w.shape) > 0  # a number in a formula is no weight
    }


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="no model zoo beside the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gradients_of_all_weights(path: Path) -> None:
    try:
        model = constant_weights(path)
        feeds = random_inputs(model)
        made = session(model, threads=2)
        names = [out.name for out in made.get_outputs() if out.type == "tensor(float)"]
        outputs = dict(zip(names, run(made, feeds, names), strict=True)) if names else {}
    except OnnxPruneError as error:
        pytest.skip(str(error)[:100])
    arrays = float_weights(model)
    if not arrays or not names:
        pytest.skip("no float weights, or no float outputs")
    if not all(np.isfinite(y).all() for y in outputs.values()):
        pytest.skip("its outputs are not finite on random inputs")
    try:
        backward = gradient(model, Projection(names), list(arrays), feeds=feeds)
    except OnnxPruneError as error:  # it names the op
        pytest.skip(str(error)[:100])
    random = np.random.default_rng(1)
    dys = {f"dy.{n}": random.normal(size=y.shape).astype(np.float32) for n, y in outputs.items()}
    _, *gradients = run(session(backward, threads=2), {**feeds, **dys})
    found = dict(zip(arrays, gradients, strict=True))
    assert all(np.isfinite(g).all() for g in gradients)
    open_model = session(with_inputs(model, list(arrays)), optimize=False, threads=2)

    def projected(**moved: np.ndarray) -> float:
        ys = run(open_model, {**feeds, **arrays, **moved}, names)
        return sum(
            float((y.astype("d") * dys[f"dy.{n}"]).sum()) for n, y in zip(names, ys, strict=True)
        )

    noise = max(  # of one evaluation: what the last digit of the weights does
        abs(projected(**{n: rounded(a, random) for n, a in arrays.items()}) - projected())
        for _ in range(3)
    )
    errors = {}
    for name in list(arrays)[:: max(1, len(arrays) // MOST_WEIGHTS)]:
        array, g = arrays[name], found[name].astype("d")
        v = np.sign(g) * np.abs(array) * np.abs(random.normal(size=array.shape))
        expected = float((g * v).sum())
        if not g.any() or abs(expected) * STEPS[-2] <= 10 * noise:
            continue
        best = np.inf
        for step in STEPS:
            sides = [projected(**{name: (array + s * step * v).astype("f")}) for s in (1, -1)]
            derivative = (sides[0] - sides[1]) / (2 * step)
            best = min(best, abs(derivative - expected) / max(abs(derivative), abs(expected)))
            if best < 1e-3:
                break
        errors[name] = best
    if errors:
        assert float(np.median(list(errors.values()))) < 3e-3, errors
    wrong = {name: error for name, error in errors.items() if not error < 5e-2}
    assert len(wrong) <= len(errors) // 10, wrong


def rounded(array: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The weights, moved by about one unit in the last place; whole numbers (scales, masks) not."""
    moved = array * (1 + 1e-7 * random.normal(size=array.shape))
    return np.where(array == np.round(array), array, moved).astype("f")


def with_inputs(model: ir.Model, names: list[str]) -> ir.Model:
    """The model with constants as inputs, to be fed."""
    opened = clone(model)
    for weight in weights(opened):
        if weight.graph is opened.graph and weight.name in names:
            value = ir.Value(
                name=weight.name, type=ir.TensorType(weight.dtype), shape=ir.Shape(weight.shape)
            )
            node = weight.value.producer()
            ir.convenience.replace_all_uses_with(weight.value, value, replace_graph_outputs=True)
            if node is None:
                del opened.graph.initializers[weight.name]
            else:
                opened.graph.remove(node)
            opened.graph.inputs.append(value)
    return opened
