"""A training step in two: what sees the samples, and what sees only means over them.

    first:   the batch and the weights  ->  the loss, its gradients, statistics of the batch
    second:  these, the rate, weights and state  ->  the loss with penalties, and the next value of all that is carried

The first half may run on parts of a batch, and its means be averaged, wherever one sample's values do not depend on the
others.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from onnxprune.autodiff.backward import drop_unused
from onnxprune.graph import clone
from onnxprune.train.step import Step

__all__ = ["halves"]


def halves(step: Step) -> tuple[ir.Model, ir.Model]:
    """The two halves; what the first gives goes into the second by the same names."""
    first, second = (
        _with_outputs(step, step.means),
        _with_outputs(step, [step.loss, *step.carried.values()]),
    )
    values = _values(second)
    for old in (values[name] for name in step.means):
        new = ir.Value(type=old.type, shape=old.shape)
        ir.convenience.replace_all_uses_with(old, new)
        new.name, old.name = old.name, None
        second.graph.inputs.append(new)
    for model in (first, second):
        drop_unused(model.graph)
        for value in list(model.graph.inputs):
            if not value.uses():
                model.graph.inputs.remove(value)
    return first, second


def _with_outputs(step: Step, names: Sequence[str]) -> ir.Model:
    model = clone(step.model)
    values = _values(model)
    model.graph.outputs[:] = [values[name] for name in names]
    return model


def _values(model: ir.Model) -> dict[str | None, ir.Value]:
    return {value.name: value for node in model.graph for value in node.outputs}
