from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from onnxprune.graph import clone, replace, weights
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train import TrainOptions, fit, trainable
from onnxprune.train.loop import Evaluated, Trained
from onnxprune.train.unfold import unfold

RANDOM = np.random.default_rng(0)


def folded_network(bias: bool = True) -> ir.Model:
    """Two convolutions with numbers of very different sizes, as folding leaves them."""
    second = (
        "Conv <pads = [1, 1, 1, 1]> (r, w2, b2)" if bias else "Conv <pads = [1, 1, 1, 1]> (r, w2)"
    )
    shapes = {
        "w1": (8, 3, 3, 3),
        "b1": (8,),
        "w2": (6, 8, 3, 3),
        "b2": (6,),
        "v": (5, 6),
        "c": (5,),
    }
    tensors = []
    if not bias:
        del shapes["b2"]
    for name, shape in shapes.items():
        sizes = np.exp(RANDOM.standard_normal((shape[0], *[1] * (len(shape) - 1))))
        terms = np.prod(shape[1:])  # of a sum: what comes out stays about as large as what goes in
        array = (sizes * RANDOM.standard_normal(shape) / np.sqrt(terms)).astype(np.float32)
        tensors.append(ir.Tensor(array, name=name))
    return ir.from_onnx_text(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        agraph (float[N,3,6,6] x) => (float[N,5] y) {{
            h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)
            r = Relu (h)
            g = {second}
            q = Relu (g)
            p = GlobalAveragePool (q)
            f = Flatten (p)
            y = Gemm <transB = 1> (f, v, c)
        }}""",
        initializers=tensors,
    )


def images(count: int) -> Dataset:
    return Dataset({"x": RANDOM.standard_normal((count, 3, 6, 6)).astype(np.float32)})


def outputs(model: ir.Model, data: Dataset) -> np.ndarray:
    return np.asarray(run(session(model), data.inputs)[0])


def test_the_unfolded_network_gives_the_same_and_normalises() -> None:
    model, data = folded_network(), images(64)
    found = unfold(model, trainable(model), data)
    np.testing.assert_allclose(
        outputs(found.model, data), outputs(model, data), rtol=1e-4, atol=1e-5
    )
    nodes = [node for node in found.model.graph if node.op_type == "BatchNormalization"]
    assert len(nodes) == 2
    names = {weight.name for weight in found.chosen}
    assert {"w1", "w2", "v", "c"} < names
    assert not names & {"b1", "b2"}
    for node in nodes:
        scale, shift, mean, variance = (v.const_value.numpy() for v in node.inputs[1:])  # type: ignore[union-attr]
        np.testing.assert_allclose(scale**2, variance, rtol=1e-3, atol=2e-5)
        np.testing.assert_array_equal(shift, mean)


def test_what_is_trained_goes_back_into_kernel_and_bias() -> None:
    model, data = folded_network(), images(64)
    found = unfold(model, trainable(model), data)
    trained = clone(found.model)
    arrays = {}
    for weight in weights(trained):
        low = 0.5 if weight.name.endswith("variance") else -1.0
        if weight.name not in ("b1", "b2"):
            arrays[weight.name] = RANDOM.uniform(low, 2.0, weight.shape).astype(np.float32)
            replace(weight, arrays[weight.name])
    arrays["w1"][:, 0] = 0
    nothing = Evaluated(0.0)
    back = found.folded(Trained(arrays, nothing, nothing, 1))
    assert set(back.weights) == {"w1", "b1", "w2", "b2", "v", "c"}
    assert not np.signbit(back.weights["w1"][:, 0]).any()  # bit for bit zero, whatever the scale
    result = clone(model)
    for weight in weights(result):
        replace(weight, back.weights[weight.name])
    np.testing.assert_allclose(outputs(result, data), outputs(trained, data), rtol=1e-4, atol=1e-4)


def test_without_a_bias_nothing_was_folded() -> None:
    model, data = folded_network(bias=False), images(16)
    found = unfold(model, trainable(model), data)
    assert sum(node.op_type == "BatchNormalization" for node in found.model.graph) == 1


@pytest.mark.parametrize("labels", [True, False])
def test_training_ends_with_the_network_as_it_was_given(labels: bool) -> None:
    model, teacher, data = folded_network(), folded_network(), images(256)
    bright = (data.inputs["x"].mean((1, 2, 3)) > 0).astype(np.int64)
    data = Dataset(data.inputs, labels=bright if labels else None)
    options = TrainOptions(epochs=8, unfold=True, block_epochs=0, augment=(), threads=1, lr=0.02)
    found = fit(model, data, None if labels else teacher, options)
    assert found.trained.best.loss < 0.7 * found.trained.start.loss
    names = [weight.name for weight in weights(model)]
    assert [weight.name for weight in weights(found.model)] == names
    assert [node.op_type for node in found.model.graph] == [node.op_type for node in model.graph]
