from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from adjoint import check_op

STEPS, BATCH, INPUTS, HIDDEN = 4, 3, 2, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def inputs_of(
    op_type: str, directions: int, *, bias: bool, lengths: bool, states: bool
) -> list[np.ndarray | None]:
    random = np.random.default_rng(3)

    def normal(*shape: int) -> np.ndarray:
        return (random.normal(size=shape) * 0.5).astype(np.float32)

    rows = GATES[op_type] * HIDDEN
    found = [
        normal(STEPS, BATCH, INPUTS),
        normal(directions, rows, INPUTS),
        normal(directions, rows, HIDDEN),
        normal(directions, 2 * rows) if bias else None,
        np.array([4, 2, 3], np.int32) if lengths else None,
        normal(directions, BATCH, HIDDEN) if states else None,
    ]
    if op_type == "LSTM":
        found.append(normal(directions, BATCH, HIDDEN) if states else None)
    while found[-1] is None:
        found.pop()
    return found


@pytest.mark.parametrize(
    ("direction", "lengths", "states"),
    list(itertools.product(["forward", "reverse", "bidirectional"], [False, True], [False, True])),
)
@pytest.mark.parametrize("op_type", ["LSTM", "GRU", "RNN"])
def test_recurrent(op_type: str, direction: str, lengths: bool, states: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    inputs = inputs_of(op_type, directions, bias=states, lengths=lengths, states=states)
    outputs = 3 if op_type == "LSTM" else 2
    check_op(op_type, inputs, outputs, hidden_size=HIDDEN, direction=direction)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
def test_gru_with_the_reset_after_the_product(direction: str, lengths: bool) -> None:
    directions = 2 if direction == "bidirectional" else 1
    inputs = inputs_of("GRU", directions, bias=True, lengths=lengths, states=True)
    check_op(
        "GRU",
        inputs,
        2,
        hidden_size=HIDDEN,
        direction=direction,
        linear_before_reset=1,
    )


def test_rnn_with_relu() -> None:
    inputs = inputs_of("RNN", 1, bias=True, lengths=False, states=True)
    check_op("RNN", inputs, 2, hidden_size=HIDDEN, activations=["Relu"])


@pytest.mark.parametrize("given", [["y0"], ["y1"], ["y2"]])
def test_a_loss_that_sees_only_some_outputs(given: list[str]) -> None:
    inputs = inputs_of("LSTM", 2, bias=True, lengths=True, states=True)
    check_op("LSTM", inputs, 3, hidden_size=HIDDEN, direction="bidirectional", given=given)


def test_any_batch_and_length() -> None:
    inputs = inputs_of("LSTM", 1, bias=True, lengths=False, states=False)
    check_op("LSTM", inputs, 3, hidden_size=HIDDEN, constants=[1, 2, 3], dynamic=True)


FORMS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"clip": 0.7}),
    ("LSTM", {"input_forget": 1}),
    (
        "LSTM",
        {
            "activations": ["HardSigmoid", "ScaledTanh", "Softsign"],
            "activation_alpha": [0.3, 1.2],
            "activation_beta": [0.4, 0.8],
        },
    ),
    ("GRU", {"clip": 0.6}),
    (
        "GRU",
        {
            "activations": ["Sigmoid", "LeakyRelu"],
            "activation_alpha": [0.2],
            "linear_before_reset": 1,
        },
    ),
    ("RNN", {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ("RNN", {"activations": ["Elu"], "clip": 0.8}),
]


@pytest.mark.parametrize("direction", ["reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(("op_type", "form"), FORMS)
def test_unusual_forms(op_type: str, form: dict[str, Any], lengths: bool, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    inputs = inputs_of(op_type, directions, bias=True, lengths=lengths, states=True)
    form = {k: v * directions if isinstance(v, list) else v for k, v in form.items()}
    outputs = 3 if op_type == "LSTM" else 2
    check_op(op_type, inputs, outputs, hidden_size=HIDDEN, direction=direction, **form)


@pytest.mark.parametrize("coupled", [0, 1])
def test_peepholes(coupled: int) -> None:
    inputs = inputs_of("LSTM", 1, bias=True, lengths=True, states=True)
    inputs.append(np.random.default_rng(8).normal(size=(1, 3 * HIDDEN)).astype(np.float32))
    check_op("LSTM", inputs, 3, hidden_size=HIDDEN, input_forget=coupled)
