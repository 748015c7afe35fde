"""Real models: the gradients of all weights against directional derivatives, both sides known.

The gradient is taken of sum_o <dy_o, y_o> with random dy. Outputs out of a Softmax or Sigmoid are
replaced by what enters it, as the losses do: where those saturate, float32 holds no digit of their
derivative. Three gradients are compared:

    g     the program's, in float32 on onnxruntime
    held  the same graph in float64 (`double.py`), but for the values of the forward pass, which are
          those that float32 gave
    exact the same graph in float64

1. The graph is right: exact agrees to 1e-5 with the derivative in float64, in a direction along which
   every weight of a group has the same share of the gradient (<exact_w, v_w> = 1), so that none hides
   behind another. All weights are in a group, those of alike sensitivity together. A few steps are
   tried, for kinks ask for small ones and rounding for large; one of them must agree (of a wrong
   gradient none does). Where none agrees, the derivatives from the left and from the right must differ
   at the step around which the estimate changes least: the weights are on a kink, and the test says so.
   They must differ by as much as the gradient is off, unless that is less than 1e-3: where some units of
   dead channels wait for a step to the left and others for one to the right, neither side is the
   gradient.
2. Float32 computes it: g agrees with held to 1e-3, weight by weight. Both stand on the same side of
   every kink. Where sums cancel, g may be off by ten times what changes of 2^-24 in every value of the
   backward pass make (once each, at random), and the test names the weight.
3. g agrees with exact to 1e-3, or else the forward pass itself was moved by rounding: over kinks (some of
   the comparisons and places of maxima come out otherwise in float64, and the test says how many), or
   its own values, where the model cancels. The test says how many weights that moves by more.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from adjoint import Projection
from double import Array, Double

from onnxprune.autodiff import NoGradientError, gradient
from onnxprune.autodiff.backward import is_float
from onnxprune.autodiff.registry import is_constant_op
from onnxprune.autodiff.shapes import forget_shapes
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import clone, inline, load, weights
from onnxprune.runtime.inputs import random_inputs
from onnxprune.runtime.sessions import run, session

ZOO = Path(__file__).parents[3] / "shared" / "zoo"
FILES = sorted(ZOO.glob("*.onnx"))
GROUPS = 4
RELATIVE = 1e-3
GRAPH = 1e-5
FLOAT32 = 2.0**-24
EXPONENTS = (6, 7, 8, 9, 5, 4, 3)
"""Of steps relative to the weights' size, in the order tried: kinks ask for small ones, rounding for large."""
SATURATING = {"Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid"}
PASSED_ON = {"Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Transpose", "Flatten"}
MEMORY = 32
"""Times the forward values in float32, about what the oracle takes."""
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
@pytest.mark.filterwarnings("default:.*on a kink:UserWarning")
@pytest.mark.skipif(not FILES, reason="no model zoo beside the repository")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_gradients_of_all_weights(path: Path, record_property: Callable[..., None]) -> None:
    try:
        at = point(path)
    except OnnxPruneError as error:
        pytest.skip(f"onnxruntime does not run it: {str(error)[:100]}")
    if any(node.op_type.startswith("QLinear") for node in at.model.graph):
        pytest.skip("a quantised model: what is differentiated is not what differences show")
    if not at.weights or not at.outputs:
        pytest.skip("no float weights, or no float outputs")
    try:
        backward = gradient(at.model, Projection(at.outputs), list(at.weights), feeds=at.feeds)
    except NoGradientError as error:
        pytest.skip(str(error)[:150])  # it names the op
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = compare(at, backward)
    record_property("found", found)
    print(path.stem, found)
    if found.kinks:
        warnings.warn(f"{path.stem}: {found.kinks} of {GROUPS} groups on a kink", stacklevel=1)


@dataclass(frozen=True)
class Found:
    """What a model showed.

    Attributes:
        weights: How many.
        zero: Those among them whose gradient is zero but for rounding.
        forward: Error of the outputs in float32.
        graph: Largest error of a group, of exact against the derivative.
        float32: Largest error of a weight, of g against held.
        cancelling: Weights for which that is over 1e-3, and by how much.
        moved: Weights for which g is off exact by more than 1e-3.
        flipped: Comparisons and places that came out otherwise in float32.
        kinks: Groups on a kink.
    """

    weights: int
    zero: int
    forward: float
    graph: float
    float32: float
    cancelling: dict[str, float]
    moved: int
    flipped: int
    kinks: int


def compare(at: Point, backward: ir.Model) -> Found:
    names = [v.name or "" for v in backward.graph.outputs]
    forward, decisions = inner_values(backward)
    feeds = {**at.feeds, **at.dys}
    in_single = single_precision(backward, [*names, *forward, *decisions], feeds)
    here = {name: in_single.pop(name) for name in forward}
    needed = MEMORY * sum(array.nbytes for array in here.values())
    if needed > os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        pytest.skip(f"the float64 oracle takes about {needed / 2**30:.0f} GiB of memory")
    double = Double(backward)
    in_double = double(feeds, [*names, *decisions])
    flipped = sum(int((in_double[n] != in_single[n]).sum()) for n in decisions)
    single, exact = (
        dict(zip(at.weights, (results[k] for k in names[1:]), strict=True))
        for results in (in_single, in_double)
    )
    assert all(np.isfinite(g).all() for g in single.values())
    ys = Double(at.model)(at.feeds, at.outputs)
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

    def held(graph: Double) -> dict[str, Array]:
        results = graph({**feeds, **here}, names)
        return dict(zip(at.weights, (results[k] for k in names[1:]), strict=True))

    at_same = held(double)
    errors = {n: distance(single[n], at_same[n]) for n in live}
    cancelling = {n: e for n, e in errors.items() if e > RELATIVE}
    if cancelling:
        noisy = held(Double(backward, FLOAT32))
        for name, error in cancelling.items():
            lost = distance(noisy[name], at_same[name])
            assert error <= 10 * lost, (
                f"{name}: off by {error:.2e}, where rounding loses {lost:.2e}"
            )
    moved = sum(distance(single[n], exact[n]) > RELATIVE for n in live)
    graph, kinks = groups(at, live, along, worth)
    return Found(
        len(worth),
        len(zero),
        off,
        graph,
        max(errors.values(), default=0.0),
        cancelling,
        moved,
        flipped,
        kinks,
    )


def inner_values(model: ir.Model) -> tuple[list[str], list[str]]:
    """What the forward pass of a gradient model makes, and what its backward pass decides.

    Decisions are the values that are no real numbers (comparisons, places) or piecewise constant.
    """
    forward, decisions = [], []
    for node in model.graph:
        for value in node.outputs:
            if not value.uses() or value.is_graph_output():
                continue
            if not str(value.name).startswith("backward/"):
                forward.append(str(value.name))
            elif value.dtype is not None and (is_constant_op(node) or not is_float(value)):
                decisions.append(str(value.name))
    return forward, decisions


def single_precision(
    model: ir.Model, names: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, Array]:
    """Values of a model by name, on onnxruntime."""
    probe = clone(model)
    made = [value for node in probe.graph for value in node.outputs]
    probe.graph.outputs.clear()
    by_name = {value.name: value for value in made}
    probe.graph.outputs.extend(by_name[name] for name in names)
    forget_shapes(made)
    return dict(zip(names, run(session(probe), feeds, names), strict=True))


def groups(
    at: Point, live: Sequence[str], along: Mapping[str, Array], worth: Mapping[str, float]
) -> tuple[float, int]:
    """The largest error of the gradient in float64, and how many groups are on a kink."""
    forward = Double(at.model)

    def loss(moved: Mapping[str, Array]) -> float:
        ys = forward({**at.feeds, **moved}, at.outputs)
        return sum(float((ys[n] * at.dys[f"dy.{n}"]).sum()) for n in at.outputs)

    worst, kinks, middle = 0.0, 0, loss({})
    for part in np.array_split(np.array(live, object), GROUPS):
        group = [str(name) for name in part]
        if not group:
            continue
        moves = {n: along[n] / worth[n] * worth[group[0]] for n in group}
        claimed = len(group) * worth[group[0]]
        derivative, left, right = derivatives(loss, at.weights, moves, middle, claimed)
        error, kink = abs(claimed - derivative) / claimed, abs(left - right) / claimed
        if error <= GRAPH:
            worst = max(worst, error)
            continue
        on_kink = kink >= error or (error <= RELATIVE and kink > GRAPH)
        assert on_kink, f"{group}: {claimed}, but {derivative}; {left}, {right}"
        kinks += 1
    return worst, kinks


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
    middle: float,
    claimed: float,
) -> tuple[float, float, float]:
    """Central, left and right derivative, at the first step where the central one is as claimed.

    Where there is none, at the step around which it changes least. The loss is `middle` where no value
    is moved.
    """
    scale = scales(values)
    size = max(float((np.abs(v) / scale[n]).max()) for n, v in moves.items())
    found: dict[int, tuple[float, float, float]] = {}
    for exponent in EXPONENTS:
        h = 10.0**-exponent / size
        right, left = (loss({n: values[n] + s * h * v for n, v in moves.items()}) for s in (1, -1))
        central = (right - left) / (2 * h)
        found[exponent] = central, (middle - left) / h, (right - middle) / h
        if abs(central - claimed) <= GRAPH * abs(claimed):
            return found[exponent]
    changes = {k: abs(found[k][0] - found[k - 1][0]) for k in found if k - 1 in found}
    return found[min(changes, key=changes.__getitem__)]
