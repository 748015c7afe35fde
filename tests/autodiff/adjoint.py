"""The one check of every rule: the adjoint identity against a directional derivative.

For F(x) = sum_o <dy_o, y_o(x)> with random dy, the gradient model gives g = J^T dy. In a random
direction v

    <g, v>  =  <dy, J v>  =  (F(x + h v) - F(x - h v)) / 2h  + O(h^2)

The right side is computed in float64 (`double.py`), or where some op cannot be, in float32 with a
coarser step and tolerance. The left side is the program's, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from double import Double

from onnxprune.autodiff import Ops, Tensor, gradient

Array = np.ndarray[Any, Any]
Feeds = dict[str, Array]


@dataclass(frozen=True)
class Projection:
    """The loss sum_o <dy_o, y_o>, with dy as inputs named `dy.<output>`."""

    outputs: Sequence[str]

    def build(self, op: Ops, values: Mapping[str, Tensor]) -> Any:
        seeds = []
        total = None
        for name in self.outputs:
            y = values[name]
            value = ir.Value(name=f"dy.{name}", type=ir.TensorType(y.dtype), shape=y.value.shape)
            op.graph.inputs.append(value)
            seeds.append((y, Tensor(value, op)))
            term = op.ReduceSum(y * seeds[-1][1], keepdims=0)
            total = term if total is None else total + term
        return total, seeds


def run(model: ir.Model | onnx.ModelProto, feeds: Feeds, outputs: Sequence[str]) -> list[Array]:
    """Run on onnxruntime's CPU provider, one thread."""
    proto = model if isinstance(model, onnx.ModelProto) else ir.to_proto(model)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(a) for a in session.run(list(outputs), feeds)]


def one_node(
    op_type: str,
    inputs: Sequence[Array | None],
    outputs: int = 1,
    *,
    opset: int = 18,
    domain: str = "",
    dynamic: bool = False,
    constants: Sequence[int] = (),
    unused: Sequence[int] = (),
    **attributes: Any,
) -> tuple[ir.Model, Feeds]:
    """A model of one node, and its inputs; those in `constants` are initializers instead.

    Outputs in `unused` are left out.
    """
    results = ["" if i in unused else f"y{i}" for i in range(outputs)]
    names = ["" if x is None else f"x{i}" for i, x in enumerate(inputs)]
    node = onnx.helper.make_node(op_type, names, results, domain=domain, **attributes)
    feeds = {n: np.asarray(x) for n, x in zip(names, inputs, strict=True) if x is not None}
    fixed = {f"x{i}" for i in constants}
    graph = onnx.helper.make_graph(
        [node],
        op_type,
        [
            onnx.helper.make_tensor_value_info(
                name,
                onnx.helper.np_dtype_to_tensor_dtype(x.dtype),
                [None] * x.ndim if dynamic else x.shape,
            )
            for name, x in feeds.items()
            if name not in fixed
        ],
        [onnx.ValueInfoProto(name=name) for name in results if name],
        [onnx.numpy_helper.from_array(x, n) for n, x in feeds.items() if n in fixed],
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    if domain:
        imports.append(onnx.helper.make_opsetid(domain, 1))
    proto = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10)
    return ir.from_proto(proto), {n: x for n, x in feeds.items() if n not in fixed}


def check_op(
    op_type: str, inputs: Sequence[Array | None], outputs: int = 1, **options: Any
) -> None:
    """`check` of a model of one node; see `one_node` and `check` for the options."""
    checks = {
        k: options.pop(k) for k in ("wrt", "tolerance", "step", "given", "exact") if k in options
    }
    model, feeds = one_node(op_type, inputs, outputs, **options)
    check(model, feeds, **checks)


def check(
    model: ir.Model,
    feeds: Feeds,
    *,
    wrt: Sequence[str] | None = None,
    tolerance: float = 2e-4,
    step: float = 1e-6,
    given: Sequence[str] | None = None,
    exact: bool = True,
) -> None:
    """Assert that `gradient` of `model` at `feeds` is right for every floating-point input.

    Args:
        model: What to differentiate.
        feeds: Where; far from kinks, compared with `step`.
        wrt: Inputs and initializers to check, all floating-point inputs by default.
        tolerance: Largest error relative to the gradient's norm.
        step: h above, for float64.
        exact: False where onnx's reference implementation computes in float32 inside, or wrongly.
        given: Outputs that the loss depends on, by default all floating-point ones.
    """
    random = np.random.default_rng(7)
    names = [v.name or "" for v in model.graph.outputs]
    ys = dict(zip(names, run(model, feeds, names), strict=True))
    outputs = [n for n in given or names if np.issubdtype(ys[n].dtype, np.floating)]
    dys = {f"dy.{n}": np.asarray(random.normal(size=ys[n].shape), ys[n].dtype) for n in outputs}
    at = {**{n: v.const_value.numpy() for n, v in model.graph.initializers.items()}, **feeds}
    if wrt is None:
        wrt = [n for n, x in feeds.items() if np.issubdtype(x.dtype, np.floating)]
    backward = gradient(model, Projection(outputs), wrt, feeds=feeds)
    results = run(backward, {**feeds, **dys}, [v.name or "" for v in backward.graph.outputs])
    loss, *gradients = results
    terms = np.concatenate([(ys[n].astype("d") * dys[f"dy.{n}"]).ravel() for n in outputs])
    usual = float(
        np.linalg.norm(terms)
    )  # of their sum, as the signs of dy are random; it may be near zero
    assert abs(float(loss) - terms.sum()) <= 1e-4 * (1 + usual)
    evaluate, exact = _evaluator(model, feeds, outputs, exact)
    h, allowed = (step, tolerance) if exact else (max(step, 1e-2), max(tolerance, 5e-3))
    if exact:
        at = {n: _cast(x, np.float64) for n, x in at.items()}
    for name, g in zip(wrt, gradients, strict=True):
        assert g.shape == at[name].shape, f"gradient of {name}: {g.shape}, not {at[name].shape}"
        assert np.isfinite(g).all(), f"gradient of {name} is not finite"
        v = random.normal(size=g.shape)
        sides = []
        for sign in (1, -1):
            moved = evaluate({**at, name: at[name].astype("d") + sign * h * v})
            sides.append(sum((moved[n] * dys[f"dy.{n}"].astype("d")).sum() for n in outputs))
        difference = float(sides[0] - sides[1]) / (2 * h)
        product = float((g.astype("d") * v).sum())
        scale = max(float(np.linalg.norm(g.astype("d"))), abs(difference), 1e-2)
        assert abs(product - difference) <= allowed * scale, (
            f"gradient of {name}: <g, v> = {product:.7g}, directional derivative "
            f"{difference:.7g}, norm {scale:.3g}"
        )


_NUDGE = {"f": 1 + 1e-9, "i": 1, "u": 1, "b": True, "O": 1}  # out of float32, by type
Evaluate = Callable[[Mapping[str, Array]], dict[str, Array]]


def _evaluator(
    model: ir.Model, feeds: Feeds, outputs: Sequence[str], exact: bool
) -> tuple[Evaluate, bool]:
    """F of the text above, and whether it is in float64."""
    double = Double(model)
    moved = {n: _cast(x, np.float64) * _NUDGE[x.dtype.kind] for n, x in feeds.items()}
    try:
        tried = double(moved, outputs) if exact else {}
    except NotImplementedError:
        tried = {}
    if tried and not any(np.array_equal(y, y.astype(np.float32)) for y in tried.values()):
        return lambda at: double(at, outputs), True  # no digits were lost on the way
    overridable = model.clone()
    for value in overridable.graph.initializers.values():
        if value not in overridable.graph.inputs:
            overridable.graph.inputs.append(value)
    kinds = {v.name: v.dtype.numpy() for v in overridable.graph.inputs}

    def single(at: Mapping[str, Array]) -> dict[str, Array]:
        fed = {n: np.asarray(x, kinds[n]) for n, x in at.items()}
        return dict(zip(outputs, run(overridable, fed, outputs), strict=True))

    return single, False


def _cast(x: Array, dtype: Any) -> Array:
    return np.asarray(x, dtype) if np.issubdtype(x.dtype, np.floating) else x
