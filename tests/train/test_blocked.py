from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.autodiff import CrossEntropy
from onnxprune.runtime.sessions import run, session
from onnxprune.train import SGD, Runner, trainable, training_step
from onnxprune.train.blocked import DOMAIN, block_size, blocked

BLOCK = block_size()
needs_blocks = pytest.mark.skipif(
    BLOCK is None, reason="onnxruntime has no convolutions in blocks on this processor"
)


def convolution(
    channels: int,
    outputs: int,
    kernel: int = 3,
    group: int = 1,
    *,
    bias: bool = True,
    **attributes: object,
) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """A convolution whose weights are inputs, of an open number of samples, and a feed."""
    random = np.random.default_rng(0)
    feed = {
        "x": random.normal(size=(2, channels, 9, 7)).astype(np.float32),
        "w": random.normal(size=(outputs, channels // group, kernel, kernel)).astype(np.float32),
    }
    if bias:
        feed["b"] = random.normal(size=outputs).astype(np.float32)
    shapes = {"x": ("N", *feed["x"].shape[1:]), "w": feed["w"].shape, "b": (outputs,)}
    inputs = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shapes[name]))
        for name in feed
    ]
    node = ir.node("Conv", inputs, {"group": group, **attributes})
    node.outputs[0].name = "y"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(inputs, node.outputs, nodes=[node], opset_imports={"": 18}, name="g")
    return ir.Model(graph, ir_version=9), feed


def domains(model: ir.Model) -> set[str]:
    return {node.domain for node in model.graph}


@needs_blocks
@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "group", "attributes"),
    [
        (32, 48, 3, 1, {"pads": [1, 1, 1, 1]}),
        (32, 16, 3, 1, {"strides": [2, 2], "dilations": [1, 2], "pads": [0, 1, 2, 1]}),
        (16, 32, 5, 1, {"auto_pad": "SAME_UPPER"}),
        (3, 32, 3, 1, {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        (48, 48, 3, 48, {"pads": [1, 1, 1, 1]}),
        (29, 28, 3, 1, {"pads": [1, 1, 1, 1]}),
        (14, 5, 3, 1, {"pads": [1, 1, 1, 1]}),
        (1, 16, 3, 1, {}),
        (32, 7, 3, 1, {"pads": [1, 1, 1, 1]}),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_in_blocks_gives_what_it_gave(
    channels: int, outputs: int, kernel: int, group: int, attributes: dict[str, object], bias: bool
) -> None:
    model, feed = convolution(channels, outputs, kernel, group, bias=bias, **attributes)
    faster = blocked(model)
    assert DOMAIN in domains(faster)
    assert DOMAIN not in domains(model)
    (expected,), (found,) = run(session(model), feed), run(session(faster), feed)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "group"),
    [(17, 17, 3, 1), (18, 20, 3, 1), (32, 32, 1, 1), (32, 32, 3, 2)],
    ids=["many zeros", "zeros on both sides", "one tap", "groups"],
)
def test_what_blocks_do_not_fit_or_do_not_help_stays(
    channels: int, outputs: int, kernel: int, group: int
) -> None:
    model, _ = convolution(channels, outputs, kernel, group)
    assert blocked(model) is model


def test_constant_weights_are_left_to_onnxruntime() -> None:
    model, feed = convolution(32, 32)
    value = model.graph.inputs[1]
    model.graph.inputs.remove(value)
    value.const_value = ir.tensor(feed["w"], name="w")
    model.graph.register_initializer(value)
    assert blocked(model) is model


WIDE = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[N,3,12,12] x) => (float[N,5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w0, b0)
    r = Relu(a)
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (r, w1)
    s = Relu(c)
    d = Conv <pads = [1, 1, 1, 1]> (s, w2, b2)
    e = Add(s, d)
    m = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (e)
    p = GlobalAveragePool(m)
    f = Flatten(p)
    y = Gemm <transB = 1> (f, w3)
}
"""


@needs_blocks
def test_a_whole_step_in_blocks_gives_what_it_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    model = ir.from_proto(onnx.parser.parse_model(WIDE))
    shapes = {"w0": (32, 3, 3, 3), "b0": (32,), "w1": (32, 32, 3, 3), "w2": (32, 32, 3, 3)}
    for name, shape in {**shapes, "b2": (32,), "w3": (5, 32)}.items():
        value = next(v for node in model.graph for v in node.inputs if v and v.name == name)
        array = (random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
        value.const_value = ir.tensor(array, name=name)
        value.shape, value.type = ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        model.graph.register_initializer(value)
    batch = {
        "x": random.normal(size=(8, 3, 12, 12)).astype(np.float32),
        "labels": random.integers(0, 5, 8),
    }
    step = training_step(
        model,
        CrossEntropy("y"),
        SGD(0.9, weight_decay=1e-3),
        trainable(model),
        feeds={"x": batch["x"]},
    )
    assert DOMAIN in domains(blocked(step.model))

    def trained() -> dict[str, np.ndarray]:
        runner = Runner(step)
        for _ in range(3):
            runner.run(batch, 0.05)
        return runner.values({name: name for name in step.start})

    found = trained()
    monkeypatch.setattr("onnxprune.train.blocked.block_size", lambda: None)
    expected = trained()
    assert expected.keys() == found.keys() >= {*shapes, "b2", "w3"}
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-4, atol=1e-5)
