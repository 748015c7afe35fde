"""Writing a Scan node: a loop over the first axis of some tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from onnxprune.autodiff.builder import Ops, Tensor

__all__ = ["scan"]

Step = Callable[
    [Ops, Sequence[Tensor], Sequence[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]
]
"""`step(op, states, slices) -> (new states, slices of results)`; it may use tensors from
outside."""


def scan(
    op: Ops,
    step: Step,
    states: Sequence[Tensor],
    sequences: Sequence[Tensor],
    *,
    reverse: bool = False,
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Run `step` along the first axis of `sequences`.

    Args:
        op: Writes the Scan node.
        step: Its body.
        states: What the first step starts from.
        sequences: What every step gets one slice of; states, slices and results are matrices.
        reverse: From the last to the first; results are in the order of the sequences all the same.

    Returns:
        The last states, and the stacked results.
    """
    graph = ir.Graph([], [], nodes=[], name="step", opset_imports={})
    inner = Ops(graph, f"{op.unique_name('Scan')}/")
    inputs = []
    for index, outer in enumerate([*states, *sequences]):
        value = ir.Value(name=f"{inner.prefix}in_{index}", type=ir.TensorType(outer.dtype))
        graph.inputs.append(value)
        inputs.append(Tensor(value, inner))
    new, results = step(inner, inputs[: len(states)], inputs[len(states) :])
    for tensor in (*new, *results):  # every output needs a value of its own
        own = tensor.value not in graph.outputs and tensor.value.producer() is not None
        output = tensor.value if own else inner.Identity(tensor).value
        output.shape = ir.Shape([None, None])  # onnxruntime asks for it inside the branch of an If
        graph.outputs.append(output)
    direction = int(reverse)
    outputs = op.call(
        "Scan",
        *states,
        *sequences,
        outputs=len(new) + len(results),
        body=graph,
        num_scan_inputs=len(sequences),
        scan_input_directions=[direction] * len(sequences),
        scan_output_directions=[direction] * len(results) or None,
    )
    return outputs[: len(new)], outputs[len(new) :]
