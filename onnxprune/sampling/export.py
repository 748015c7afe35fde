"""The gradient model as a file of its own, for whoever wants to run it."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import onnx_ir as ir

from onnxprune.autodiff import (
    CrossEntropy,
    Distillation,
    Loss,
    NoGradientError,
    Output,
    SquaredError,
    gradient,
)
from onnxprune.errors import OptionError
from onnxprune.graph import inline, load, same_file, save, weights

__all__ = ["LOSSES", "gradient_model", "write_gradient"]

LOSSES = ("cross-entropy", "mse", "distillation")


def write_gradient(
    source: Path,
    destination: Path,
    loss: str = LOSSES[0],
    wrt: Sequence[str] = (),
    output: str | None = None,
    axis: int = 1,
) -> ir.Model:
    """Writes the model that computes a loss and its gradients.

    Args:
        source: The model to read; stays untouched.
        destination: Where the gradient model goes.
        loss: One of `LOSSES`, or the name of an output, whose elements are summed.
        wrt: Patterns of names of weights, inputs and intermediate values; none: all float weights of two axes or more,
            and all vectors.
        output: The output that the loss starts from; None: the first.
        axis: Its class axis.

    Returns:
        What was written.

    Raises:
        OptionError: No name fits a pattern, or the destination is the source.
        NoGradientError: An op on the way has no rule.
    """
    if same_file(source, destination):
        raise OptionError(f"the output would overwrite the input, {source}: name another file")
    made = gradient_model(load(source), loss, wrt, output, axis)
    save(made, destination)
    return made


def gradient_model(
    model: ir.Model,
    loss: str = LOSSES[0],
    wrt: Sequence[str] = (),
    output: str | None = None,
    axis: int = 1,
) -> ir.Model:
    """What `write_gradient` writes."""
    model = inline(model)
    targets = _targets(model, wrt)
    made = gradient(model, _loss(model, loss, output, axis), targets)
    shapes = {value.name: value.shape for value in made.graph.inputs}
    shapes |= {value.name: value.shape for value in made.graph.initializers.values()}
    shapes |= {value.name: value.shape for node in made.graph for value in node.outputs}
    made.graph.outputs[0].shape = ir.Shape([])
    for name, value in zip(targets, list(made.graph.outputs)[1:], strict=True):
        value.shape = shapes.get(name)
    return made


def _loss(model: ir.Model, name: str, output: str | None, axis: int) -> Loss:
    names = [value.name or "" for value in model.graph.outputs]
    if name in names:
        return Output(name)
    if output is not None and output not in names:
        raise OptionError(f"the model has no output {output!r}: it has {', '.join(names)}")
    start = names[0] if output is None else output
    if name == "cross-entropy":
        return CrossEntropy(start, axis=axis)
    if name == "mse":
        return SquaredError(start)
    if name == "distillation":
        return Distillation(start, axis=axis)
    raise OptionError(
        f"unknown loss {name!r}: choose from {', '.join(LOSSES)}, or name an output: {', '.join(names)}"
    )


def _targets(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    own = [
        weight.name
        for weight in weights(model)
        if weight.graph is model.graph and weight.dtype.is_floating_point()
    ]
    if not patterns:
        learned = [weight.name for weight in weights(model) if len(weight.shape) > 0]
        found = [name for name in own if name in learned]
        if not found:
            raise NoGradientError("the model has no weights of a float type in its main graph")
        return list(dict.fromkeys(found))
    values = [value.name for value in model.graph.inputs]
    values += [value.name for node in model.graph for value in node.outputs]
    names = list(dict.fromkeys([*own, *(name for name in values if name)]))
    found = []
    for pattern in patterns:
        fit = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fit:
            raise OptionError(
                f"--wrt {pattern!r} fits no float weight, input or value of the model"
            )
        found += fit
    return list(dict.fromkeys(found))
