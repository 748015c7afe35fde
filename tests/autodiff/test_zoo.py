"""Real models: the gradients of all weights against directional derivatives, both sides known.

1. The gradient g is the program's, in float32 on onnxruntime, of sum_o <dy_o, y_o> with random dy.
   Outputs out of a Softmax or Sigmoid are replaced by what enters it, as the losses do: where those
   saturate, float32 holds no digit of their derivative.
2. The derivative is taken in float64 (`double.py`), in a direction along which every weight of a group
   has the same share of the gradient (<g_w, v_w> = 1), so that none hides behind another. All weights
   are in a group, those of alike sensitivity together. The step is the one at which the estimate
   changes least from step to step; which one that is does not depend on what the gradient says.
3. They agree to 1e-3. Where they do not, the derivatives from the left and from the right must differ
   as much: the weights are on a kink, and the test says so.
4. Weight by weight, g is compared with the same gradient graph run in float64, to 1e-3 of its norm. Of
   the weights of a model at most one in ten may be further off, by 5 % at most, and the test names
   them: float32 puts a unit on the other side of its kink there, or a sum cancels.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from adjoint import Projection
from double import Array, Double

from onnxprune.autodiff import NoGradientError, gradient
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import clone, inline, load, weights
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.sessions import run, session

ZOO = Path(__file__).parents[3] / "shared" / "zoo"
FILES = sorted(ZOO.glob("*.onnx"))
GROUPS = 4
RELATIVE = 1e-3
EXPONENTS = (6, 7, 8, 9, 5, 4, 3)
"""Of steps relative to the weights' size, in the order tried: kinks ask for small ones, rounding for large."""
SATURATING = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"}
PASSED_ON = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
SMALLEST = 1e-9
"""Of a gradient, relative to that of the most sensitive weight: below, it is zero but for rounding."""


@dataclass(frozen=True)
class Point:
    """A model, where its gradient is taken, and what is differentiated there."""

    model: ir.Model
    feeds: dict[str, Array]
    outputs: list[str]
    dys: dict[str, Array]
    weights: dict[str, Array]


def point(path: Path) -> Point:
    model = clone(inline(load(path)))
    for name, value in list(model.graph.initializers.items()):
        if value.is_graph_input():
            model.graph.inputs.remove(value)
            model.graph.initializers[name] = value
    model.ir_version = max(4, model.ir_version or 0)
    feeds = random_inputs(model)
    for value in model.graph.inputs:  # whole sequences, not empty ones
        if any(n.op_type in {"LSTM", "GRU", "RNN"} and k == 4 for n, k in value.uses()):
            feeds[value.name or ""][:] = 4
    for place, value in enumerate(model.graph.outputs):
        model.graph.outputs[place] = before_saturation(value)
    made = session(model)
    names = [out.name for out in made.get_outputs() if out.type == "tensor(float)"]
    ys = dict(zip(names, run(made, feeds, names), strict=True)) if names else {}
    random = np.random.default_rng(1)
    dys = {f"dy.{n}": random.normal(size=y.shape).astype("f") for n, y in ys.items()}
    return Point(model, feeds, names, dys, float_weights(model))


def before_saturation(value: ir.Value) -> ir.Value:
    """What enters the Softmax or Sigmoid that an output comes out of, maybe reshaped; else itself."""
    node = value.producer()
    while node is not None and node.op_type in SATURATING | PASSED_ON:
        (inner,) = node.inputs[:1]
        if inner is None or inner.producer() is None or inner.is_graph_output():
            break
        if node.op_type in SATURATING:
            inner.type, inner.shape = value.type, None
            return inner
        node = inner.producer()
    return value


def float_weights(model: ir.Model) -> dict[str, Array]:
    """Those of the branches of an If too, where their name is theirs alone."""
    found = [w for w in weights(model) if w.dtype == ir.DataType.FLOAT and len(w.shape) > 0]
    names = [w.name for w in found]
    return {
        w.name: w.array()
        for w in found
        if names.count(w.name) == 1
        and w.array().size
        and (w.graph is model.graph or w.kind != "constant_of_shape")
    }


@pytest.mark.slow
@pytest.mark.skipif(not FILES, reason="no model zoo beside the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gradients_of_all_weights(path: Path, record_property: Callable[..., None]) -> None:
    try:
        at = point(path)
    except OnnxPruneError as error:
        pytest.skip(f"onnxruntime does not run it: {str(error)[:100]}")
    if any(node.op_type.startswith("QLinear") for node in at.model.graph):
        pytest.skip("a quantised model: its derivative is zero almost everywhere")
    if not at.weights or not at.outputs:
        pytest.skip("no float weights, or no float outputs")
    try:
        backward = gradient(at.model, Projection(at.outputs), list(at.weights), feeds=at.feeds)
    except NoGradientError as error:
        pytest.skip(str(error)[:150])  # it names the op
    single = dict(zip(at.weights, run(session(backward), {**at.feeds, **at.dys})[1:], strict=True))
    assert all(np.isfinite(g).all() for g in single.values())
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = compare(at, backward, single)
    record_property("found", found)
    print(path.stem, found)
    if found.kinks:
        warnings.warn(f"{path.stem}: {found.kinks} of {GROUPS} groups on a kink", stacklevel=1)


@dataclass(frozen=True)
class Found:
    """What a model showed: the largest error by group, and the weights that are further off alone."""

    weights: int
    zero: int
    forward: float
    error: float
    kinks: int
    loose: dict[str, float]


def compare(at: Point, backward: ir.Model, single: Mapping[str, Array]) -> Found:
    forward = Double(at.model)
    names = [v.name or "" for v in backward.graph.outputs]

    def loss(moved: Mapping[str, Array]) -> float:
        ys = forward({**at.feeds, **moved}, at.outputs)
        return sum(float((ys[n] * at.dys[f"dy.{n}"]).sum()) for n in at.outputs)

    results = Double(backward)({**at.feeds, **at.dys}, names)
    exact = {n: results[k] for n, k in zip(at.weights, names[1:], strict=True)}
    ys = forward(at.feeds, at.outputs)
    same = run(session(at.model), at.feeds, at.outputs)
    off = max(distance(a, ys[n]) for n, a in zip(at.outputs, same, strict=True))
    assert off < 1e-2, "the float64 model is another one"
    along = directions(at.weights, exact)
    worth = {n: float((exact[n] * v).sum()) for n, v in along.items()}
    floor = SMALLEST * max(worth.values())
    live = sorted((n for n in worth if worth[n] > floor), key=worth.__getitem__)
    zero = [n for n in worth if worth[n] <= floor]
    for name in zero:
        rounding = float(np.abs(single[name] * along[name]).sum())
        assert rounding <= RELATIVE * max(worth.values()), f"the gradient of {name} should be zero"
    worst, kinks = 0.0, 0
    for part in np.array_split(np.array(live, object), GROUPS):
        group = [str(name) for name in part]
        if not group:
            continue
        moves = {n: along[n] / worth[n] * worth[group[0]] for n in group}
        total = len(group) * worth[group[0]]
        derivative, left, right = derivatives(loss, at.weights, moves)
        claimed = sum(float((single[n] * moves[n]).sum()) for n in group)
        error = abs(claimed - derivative) / abs(total)
        if error <= RELATIVE:
            worst = max(worst, error)
            continue
        kink = abs(left - right) / abs(total)
        assert kink >= error, f"{group}: {claimed}, in float64 {derivative}; {left}, {right}"
        kinks += 1
    loose = {n: e for n in live if (e := distance(single[n], exact[n])) > RELATIVE}
    assert len(loose) <= len(worth) / 10, loose
    assert max(loose.values(), default=0) < 0.05, loose
    return Found(len(worth), len(zero), off, worst, kinks, loose)


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))


def scales(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """What is a large change of each element: its own size and its tensor's, or if zero, the model's."""
    rms = {n: float(np.sqrt(np.mean(a.astype(np.float64) ** 2))) for n, a in arrays.items()}
    usual = 1e-2 * float(np.median([r for r in rms.values() if r] or [1.0]))
    return {n: np.abs(a.astype(np.float64)) + (rms[n] or usual) for n, a in arrays.items()}


def directions(arrays: Mapping[str, Array], gradients: Mapping[str, Array]) -> dict[str, Array]:
    """On the scale of the weights, and never against the gradient."""
    random, scale = np.random.default_rng(2), scales(arrays)
    return {
        n: np.sign(g) * scale[n] * np.abs(random.normal(size=g.shape)) for n, g in gradients.items()
    }


def derivatives(
    loss: Callable[[Mapping[str, Array]], float],
    values: Mapping[str, Array],
    moves: Mapping[str, Array],
) -> tuple[float, float, float]:
    """Central, left and right derivative, at the step around which the central one changes least."""
    scale = scales(values)
    size = max(float((np.abs(v) / scale[n]).max()) for n, v in moves.items())
    middle = loss({})

    def at(exponent: int) -> tuple[float, float, float]:
        h = 10.0**-exponent / size
        right, left = (loss({n: values[n] + s * h * v for n, v in moves.items()}) for s in (1, -1))
        return (right - left) / (2 * h), (middle - left) / h, (right - middle) / h

    found: dict[int, tuple[float, float, float]] = {}
    changes: dict[int, float] = {}
    for exponent in EXPONENTS:
        found[exponent] = at(exponent)
        for a, b in ((exponent - 1, exponent), (exponent, exponent + 1)):
            if a in found and b in found and np.isfinite(found[a][0]):
                changes[b] = abs(found[a][0] - found[b][0])
        if changes and min(changes.values()) <= 1e-5 * abs(found[exponent][0]):
            break
    return found[min(changes, key=changes.__getitem__)]
