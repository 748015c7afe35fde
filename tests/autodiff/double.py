"""A model run in float64, node by node: what gradients are measured against.

onnxruntime has float64 kernels for two thirds of the ops, convolutions not among them; onnx's
reference implementation has all of ONNX, but loops in Python over pixels, knows one direction of an
LSTM, and no op of another domain. So every node is computed by the first of these that can:

1. the few ops of `double_ops.py`, in numpy, that the other two lack or take seconds for;
2. onnxruntime, on a model of that node alone;
3. onnx's reference implementation of that node.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from double_ops import OPS, wide
from onnx.reference import ReferenceEvaluator

from onnxprune.graph.flow import captured_values

Array = np.ndarray[Any, Any]
Evaluate = Callable[[Sequence[Array | None]], Sequence[Array]]

SINGLE = {ir.DataType.FLOAT, ir.DataType.FLOAT16}
FIRST_IR, LAST_IR = 8, 10  # versions of single-node models
EMPTY = np.zeros(0)  # of outputs that nothing reads


class Double:
    """The same computation as `model` does, on float64.

    Args:
        model: Its functions inlined.
        rounding: Relative size of a random change of all that nodes give, as coarser arithmetic
            would make it (Parker, Pierce and Eggert 2000, "Monte Carlo arithmetic").
    """

    def __init__(self, model: ir.Model, rounding: float = 0.0) -> None:
        self.model = in_double(model)
        self.rounding, self.random = rounding, np.random.default_rng(4)
        self.evaluators: dict[ir.Node, Evaluate] = {}

    def __call__(self, feeds: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Values by name; `feeds` may hold other contents for constants, too, and what nodes are to give."""
        moved = {name: wide(array) for name, array in feeds.items()}
        found = self._graph(self.model.graph, {}, moved, set(outputs))
        return {str(v.name): a for v, a in found.items() if v.name in outputs}

    def _graph(
        self,
        graph: ir.Graph,
        outer: Mapping[ir.Value, Array],
        feeds: Mapping[str, Array],
        asked: set[str],
    ) -> dict[ir.Value, Array]:
        known = dict(outer)
        known.update({v: feeds[str(v.name)] for v in graph.inputs if v.name in feeds})
        for name, value in graph.initializers.items():
            if value not in known:
                known[value] = feeds.get(name, wide(_array(value.const_value)))
        last = _last_uses(graph)
        kept = {*graph.outputs, *outer}
        for node in graph:
            made = [v for v in node.outputs if v.uses() or v.is_graph_output()]
            if made and all(v.name in feeds for v in made):
                results: Sequence[Array] = [feeds.get(str(v.name), EMPTY) for v in node.outputs]
            elif node.op_type == "If":
                results = self._if(node, known, feeds)
            else:
                reads = [*node.inputs, *captured_values(node)]
                results = self._node(node, [None if v is None else known[v] for v in reads])
                if self.rounding:
                    results = [self._rounded(a) for a in results]
            known.update(zip(node.outputs, results, strict=False))
            for value in last.get(node, ()):
                if value not in kept and value.name not in asked:
                    known.pop(value, None)
        return known

    def _rounded(self, array: Array) -> Array:
        """Numbers that float32 holds are left as they are: whole ones, mostly."""
        if array.dtype != np.float64:
            return array
        noise = self.rounding * self.random.uniform(-1, 1, array.shape)
        return array * (1 + noise * (array != array.astype(np.float32)))

    def _if(
        self, node: ir.Node, known: Mapping[ir.Value, Array], feeds: Mapping[str, Array]
    ) -> list[Array]:
        condition = node.inputs[0]
        assert condition is not None
        name = "then_branch" if known[condition].ravel()[0] else "else_branch"
        body = node.attributes[name].as_graph()
        inside = self._graph(body, known, feeds, set())
        return [inside[value] for value in body.outputs]

    def _node(self, node: ir.Node, arrays: Sequence[Array | None]) -> Sequence[Array]:
        if node in self.evaluators:
            return self.evaluators[node](arrays)
        problems = []
        for make in (_numpy, _onnxruntime, _reference):
            try:
                evaluate = make(node, arrays, self.model)
                results = evaluate(arrays)
            except Exception as error:
                problems.append(f"{make.__name__}: {str(error).splitlines()[:1]}")
                continue
            if any(a.dtype in (np.float32, np.float16) for a in results):
                problems.append(f"{make.__name__}: not in float64")
                continue
            self.evaluators[node] = evaluate
            return results
        raise NotImplementedError(f"{node.op_type} in float64: {'; '.join(problems)}")


def in_double(model: ir.Model) -> ir.Model:
    """The same computation on float64, in the same ops."""
    double = model.clone()
    graphs = [double.graph, *double.graph.subgraphs()]
    for graph in graphs:
        for value in [*graph.inputs, *graph.outputs]:
            _widen(value)
        for value in graph.initializers.values():
            if value.dtype in SINGLE:
                array = _array(value.const_value).astype("d")
                value.const_value = ir.tensor(array, name=value.name)
                _widen(value)
    for node in double.graph.all_nodes():
        for output in node.outputs:
            _widen(output)
        for key, attribute in list(node.attributes.items()):
            if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in SINGLE:
                array = attribute.value.numpy().astype("d")
                node.attributes[key] = ir.AttrTensor(key, ir.tensor(array))
            elif key == "stash_type" or (key == "to" and attribute.value in SINGLE):
                node.attributes[key] = ir.AttrInt64(key, int(ir.DataType.DOUBLE))
    return double


def _widen(value: ir.Value) -> None:
    if value.dtype in SINGLE:
        value.type = ir.TensorType(ir.DataType.DOUBLE)


def _array(tensor: ir.TensorProtocol | None) -> Array:
    assert tensor is not None
    return tensor.numpy()


def _last_uses(graph: ir.Graph) -> dict[ir.Node, list[ir.Value]]:
    last: dict[ir.Value, ir.Node] = {}
    for node in graph:
        for value in (*node.inputs, *captured_values(node), *node.outputs):
            if value is not None:
                last[value] = node
    found: dict[ir.Node, list[ir.Value]] = {}
    for value, node in last.items():
        found.setdefault(node, []).append(value)
    return found


def _alone(node: ir.Node, arrays: Sequence[Array | None], model: ir.Model) -> onnx.ModelProto:
    """A model of one node, and of what its bodies capture."""
    proto = ir.serde.serialize_node(node)
    values = [*node.inputs, *captured_values(node)]
    inputs = {
        str(v.name): onnx.helper.make_tensor_value_info(
            str(v.name), onnx.helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim
        )
        for v, a in zip(values, arrays, strict=True)
        if v is not None and a is not None
    }
    outputs = [onnx.ValueInfoProto(name=name) for name in proto.output if name]
    graph = onnx.helper.make_graph([proto], "node", list(inputs.values()), outputs)
    imports = [
        onnx.helper.make_opsetid(domain, version)
        for domain, version in model.opset_imports.items()
        if domain in {"", node.domain}
    ]
    version = min(max(model.ir_version or FIRST_IR, FIRST_IR), LAST_IR)
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=version)


def _feed(node: ir.Node, arrays: Sequence[Array | None]) -> dict[str, Array]:
    values = [*node.inputs, *captured_values(node)]
    return {
        str(v.name): a
        for v, a in zip(values, arrays, strict=True)
        if v is not None and a is not None
    }


def _placed(node: ir.Node, results: Sequence[Any]) -> list[Array]:
    """Results in the places of the outputs that have names."""
    given = iter(results)
    return [np.asarray(next(given)) if v.name else EMPTY for v in node.outputs]


def _onnxruntime(node: ir.Node, arrays: Sequence[Array | None], model: ir.Model) -> Evaluate:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        _alone(node, arrays, model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda given: _placed(node, session.run(None, _feed(node, given)))


def _reference(node: ir.Node, arrays: Sequence[Array | None], model: ir.Model) -> Evaluate:
    session = ReferenceEvaluator(_alone(node, arrays, model))
    return lambda given: _placed(node, session.run(None, _feed(node, given)))


def _numpy(node: ir.Node, arrays: Sequence[Array | None], model: ir.Model) -> Evaluate:
    attributes = {name: a.value for name, a in node.attributes.items()}
    if node.op_type in {"Resize", "Upsample"}:
        return _resize(node, arrays, model)
    rule = OPS[node.op_type]
    return lambda given: [np.asarray(y) for y in rule(attributes, *given)]


def _resize(node: ir.Node, arrays: Sequence[Array | None], model: ir.Model) -> Evaluate:
    """Linear and separable: one matrix an axis, which is what onnxruntime makes of the identity."""
    x = arrays[0]
    assert x is not None
    if "scales" in node.attributes or "tf_crop_and_resize" in str(node.attributes):
        raise NotImplementedError("Resize with a region or of opset 7")
    place = next(k for k in reversed(range(len(arrays))) if arrays[k] is not None)
    factors = arrays[place]
    assert factors is not None
    sizes = place == 3
    matrices = {}
    for axis, (size, factor) in enumerate(zip(x.shape, factors, strict=True)):
        if factor == (size if sizes else 1):
            continue
        inputs: list[Array | None] = [
            None if a is None else np.zeros(0, np.float32) for a in arrays
        ]
        inputs[0] = np.eye(size, dtype=np.float32)[None, None]
        new = [1, 1, size if sizes else 1, factor]
        inputs[place] = np.array(new, np.int64 if sizes else np.float32)
        (matrix,) = _onnxruntime(node, inputs, model)(inputs)
        matrices[axis] = matrix[0, 0].astype(np.float64)

    def evaluate(given: Sequence[Array | None]) -> list[Array]:
        y = given[0]
        assert y is not None
        for axis, matrix in matrices.items():
            y = np.moveaxis(np.moveaxis(y, axis, -1) @ matrix, -1, axis)
        return [y]

    return evaluate
