"""Cutting equals masking, asked of a small model in two ways: by the product's own proof and by a masking written here.

`build` makes a model from a few lines of ONNX text; `assert_cut_equals_mask` prunes it and holds the result, as a file,
against the original file with the removed slices set to zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
from onnx import helper, numpy_helper

from onnxprune.dims import Keep, Tracing, cut, trace
from onnxprune.graph import inline, load, save
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates, channel_scores, choose, kept_counts
from onnxprune.plan.removal import removed
from onnxprune.runtime.measure import measure
from onnxprune.scores import Context, get_criterion
from onnxprune.validation.proof import inexact_dims, prove

TOLERANCE = 2e-4
"""Largest relative difference of an output: float32 sums in another order, on models of a few layers."""
DIVIDES = {("BatchNormalization", 3), ("BatchNormalization", 4), ("Div", 1), ("Pow", 1), ("Mod", 1)}
ZERO_POINTS = {
    ("ConvInteger", 1): 3,
    ("DequantizeLinear", 0): 2,
    ("MatMulInteger", 1): 3,
    ("QLinearConv", 3): 5,
    ("QLinearMatMul", 0): 2,
    ("QLinearMatMul", 3): 5,
}
"""Which input says what means zero."""

Shape = tuple[int, ...]
Plan = dict[str, dict[str, list[int]]]


@dataclass(frozen=True)
class Cut:
    """A pruned model, as it stands in its file."""

    original: onnx.ModelProto
    pruned: onnx.ModelProto
    tracing: Tracing
    keep: Keep
    plan: Plan

    def shape(self, name: str) -> Shape:
        """The shape of a constant of the pruned model."""
        return tuple(constants(self.pruned)[name].dims)

    def node(self, op: str, k: int = 0) -> onnx.NodeProto:
        """The k-th node of an op, bodies included."""
        return [n for g in graphs(self.pruned.graph) for n in g.node if n.op_type == op][k]

    def attribute(self, op: str, name: str, k: int = 0) -> Any:
        """The value of an attribute of the k-th node of an op."""
        return {a.name: helper.get_attribute_value(a) for a in self.node(op, k).attribute}[name]


def build(
    text: str,
    opset: int = 17,
    ir_version: int = 9,
    functions: Sequence[onnx.FunctionProto] = (),
    **weights: Shape | np.ndarray | np.generic,
) -> onnx.ModelProto:
    """A model from the text of its graph (`(float[N, 3] x) => (float[N, 4] y) { y = MatMul(x, w) }`).

    Weights are given as arrays, or as shapes that are filled with random numbers.
    """
    graph = onnx.parser.parse_graph("g " + text.strip())
    rng = np.random.default_rng(sum(map(ord, text)))
    for name, given in weights.items():
        if isinstance(given, tuple):
            given = rng.normal(0, 0.5, given).astype("f4")
        graph.initializer.append(numpy_helper.from_array(np.asarray(given), name))
    domains = {n.domain for g in graphs(graph) for n in g.node} | {f.domain for f in functions}
    opsets = [helper.make_opsetid("", opset)]
    opsets += [helper.make_opsetid(domain, 1) for domain in sorted(domains - {""})]
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=ir_version, functions=list(functions)
    )


def prune(
    model: onnx.ModelProto,
    sparsity: float = 0.5,
    shapes: Mapping[str, Shape] | None = None,
    strict: bool = True,
    **options: Any,
) -> Cut:
    """Prunes a model the way the program does, through files.

    Args:
        model: What to prune.
        sparsity: Fraction of every Dim to remove.
        shapes: Shapes of the inputs to trace on.
        strict: The first cut must be exact; otherwise Dims that turn out inexact are left whole, as the program does.
        options: More options of `PruneOptions`.
    """
    chosen = PruneOptions(sparsity=sparsity, **{"round_to": 1, **options})
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder, "a.onnx"), Path(folder, "b.onnx")
        onnx.save(model, before)
        graph = inline(load(before))
        tracing = trace(graph, measure(graph, shapes))
        dims = candidates(tracing, chosen)
        scores = channel_scores(tracing, dims, get_criterion(chosen.criterion), Context(0))
        keep = choose(scores, kept_counts(dims, scores, chosen))
        pruned = cut(tracing, keep)
        proof = prove(tracing, keep, pruned)
        if not strict and not proof.holds:
            guilty = set(inexact_dims(tracing, keep))
            keep = {dim: mask for dim, mask in keep.items() if dim not in guilty}
            pruned = cut(tracing, keep)
            proof = prove(tracing, keep, pruned)
        assert proof.holds, f"relative error {proof.error} of {proof.output}"
        save(pruned, after)
        return Cut(model, onnx.load(after), tracing, keep, removed(tracing, keep))


def assert_cut_equals_mask(
    model: onnx.ModelProto,
    sparsity: float = 0.5,
    others: Sequence[Mapping[str, Shape]] = (),
    exact: bool = True,
    **options: Any,
) -> Cut:
    """Prunes, then compares with the masked original on the shapes traced and on others.

    Args:
        model: What to prune.
        sparsity: Fraction of every Dim to remove.
        others: Shapes of the inputs that both must run on as well.
        exact: Whether the outputs must agree; otherwise only their shapes (normalisations cut on request).
        options: Of `prune`.
    """
    found = prune(model, sparsity, **options)
    onnx.checker.check_model(found.pruned, full_check=infers(model))
    mask, slice_ = session(masked(model, found.plan)), session(found.pruned)
    for shapes in (found.tracing.measured.inputs, *others):
        for seed in (1, 2):
            feed = inputs(mask, shapes, seed)
            for one, other in zip(mask.run(None, feed), slice_.run(None, feed), strict=True):
                if not isinstance(one, np.ndarray):
                    continue  # a sequence
                assert one.shape == other.shape
                if exact:
                    assert difference(one, other) < TOLERANCE
    return found


def infers(model: onnx.ModelProto) -> bool:
    """Whether onnx's own shape inference accepts a model."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.shape_inference.InferenceError:
        return False
    return True


def masked(model: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    """The model with the slices that a plan names set to zero (the zero point, where quantised)."""
    copy = filled(model)
    known = constants(copy)
    for name, axes in plan.items():
        readers = [
            (node, i)
            for graph in graphs(copy.graph)
            for node in graph.node
            for i, each in enumerate(node.input)
            if each == name
        ]
        if any((node.op_type, i) in DIVIDES for node, i in readers):
            continue
        tensor = known[name]
        array = numpy_helper.to_array(tensor).copy()
        if array.dtype in (np.int64, np.bool_):
            continue  # sizes, indices, flags
        zero = 0
        for node, i in readers:
            at = ZERO_POINTS.get((node.op_type, i))
            if at is not None and len(node.input) > at and node.input[at] in known:
                zero = numpy_helper.to_array(known[node.input[at]]).flat[0]
        for k, gone in axes.items():
            array[(slice(None),) * int(k) + (gone,)] = zero
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return copy


def filled(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every ConstantOfShape of a constant shape is the initializer that it stands for."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = constants(copy)
    for node in list(copy.graph.node):
        if node.op_type == "ConstantOfShape" and node.input[0] in known:
            value = (
                numpy_helper.to_array(node.attribute[0].t) if node.attribute else np.zeros(1, "f4")
            )
            array = np.full(numpy_helper.to_array(known[node.input[0]]), value[0])
            copy.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
            copy.graph.node.remove(node)
    return copy


def constants(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    """Initializers and the tensors of Constant nodes by name, those of bodies and functions too."""
    found: dict[str, onnx.TensorProto] = {}
    for graph in (*graphs(model.graph), *model.functions):
        found.update({tensor.name: tensor for tensor in getattr(graph, "initializer", ())})
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                found[node.output[0]] = node.attribute[0].t
    return found


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all bodies inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def session(model: onnx.ModelProto) -> ort.InferenceSession:
    """onnxruntime on one thread, without a word."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def inputs(made: ort.InferenceSession, shapes: Mapping[str, Shape], seed: int) -> dict[str, Any]:
    """Random inputs of the given shapes."""
    rng, feed = np.random.default_rng(seed), {}
    for each in made.get_inputs():
        if each.type in ("tensor(float)", "tensor(double)", "tensor(float16)"):
            kind = {"tensor(float)": "f4", "tensor(double)": "f8", "tensor(float16)": "f2"}
            feed[each.name] = rng.normal(size=shapes[each.name]).astype(kind[each.type])
        else:
            kind = each.type[len("tensor(") : -1]
            feed[each.name] = rng.integers(0, 2, shapes[each.name]).astype(kind)
    return feed


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Relative in the Frobenius norm (values below 0.01 count as such); of integers, the share that differs."""
    if one.dtype.kind != "f":
        return float(np.mean(one != other)) if one.size else 0.0
    a, b = one.astype("f8"), other.astype("f8")
    assert np.array_equal(np.isfinite(a), np.isfinite(b))
    a, b = a[np.isfinite(a)], b[np.isfinite(a)]
    return float(np.linalg.norm(a - b) / (np.linalg.norm(a) + 0.01 * np.sqrt(a.size) + 1e-9))
