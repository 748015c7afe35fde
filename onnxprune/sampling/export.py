"""The gradient model as a file of its own, for whoever wants to run it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    Weighted,
    gradient,
)
from onnxprune.errors import OptionError
from onnxprune.graph import check_target, inline, load, same_file, save, weights
from onnxprune.runtime.inputs import random_inputs
from onnxprune.sampling.elements import has_gradient

__all__ = ["LOSSES", "GradientOptions", "gradient_model", "write_gradient"]

LOSSES = ("cross-entropy", "mse", "distillation")


@dataclass(frozen=True)
class GradientOptions:
    """What is differentiated, and by what.

    Attributes:
        losses: Summed; each one of `LOSSES` or the name of an output, whose elements are summed, maybe with a weight
            in front, as in `0.3*mse`.
        wrt: Patterns of names of weights, inputs and intermediate values; none: all float weights but single numbers.
        output: The output that losses start from; None: the first.
        axis: Its class axis.
        smoothing: Label smoothing of the cross-entropy.
        temperature: Of the distillation.
        shapes: Of inputs whose axes are open, by name; the others are found by trying.
    """

    losses: Sequence[str] = LOSSES[:1]
    wrt: Sequence[str] = ()
    output: str | None = None
    axis: int = 1
    smoothing: float = 0.0
    temperature: float = 1.0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def write_gradient(source: Path, destination: Path, options: GradientOptions) -> ir.Model:
    """Writes the model that computes a loss and its gradients.

    Args:
        source: The model to read; stays untouched.
        destination: Where the gradient model goes.
        options: What is differentiated, and by what.

    Returns:
        What was written.

    Raises:
        OptionError: No name fits a pattern, or the destination is the source.
        NoGradientError: An op on the way has no rule.
    """
    if same_file(source, destination):
        raise OptionError(f"the output would overwrite the input, {source}: name another file")
    check_target(destination)
    made = gradient_model(load(source), options)
    save(made, destination)
    return made


def gradient_model(model: ir.Model, options: GradientOptions) -> ir.Model:
    """What `write_gradient` writes."""
    model = inline(model)
    targets = _targets(model, options.wrt)
    feeds = random_inputs(model, shapes=options.shapes)
    made = gradient(model, _loss(model, options), targets, feeds=feeds)
    shapes = {value.name: value.shape for value in made.graph.inputs}
    shapes |= {value.name: value.shape for value in made.graph.initializers.values()}
    shapes |= {value.name: value.shape for node in made.graph for value in node.outputs}
    made.graph.outputs[0].shape = ir.Shape([])
    for name, value in zip(targets, list(made.graph.outputs)[1:], strict=True):
        value.shape = shapes.get(name)
    return made


def _loss(model: ir.Model, options: GradientOptions) -> Loss:
    terms = [_term(model, text, options) for text in options.losses]
    return terms[0][1] if len(terms) == 1 and terms[0][0] == 1 else Weighted(tuple(terms))


def _term(model: ir.Model, text: str, options: GradientOptions) -> tuple[float, Loss]:
    """A loss and its weight."""
    names = [value.name or "" for value in model.graph.outputs]
    if text in names:
        return 1.0, Output(text)
    front, _, name = text.rpartition("*")
    try:
        weight = float(front) if front else 1.0
    except ValueError:
        weight, name = 1.0, text
    if not math.isfinite(weight):
        raise OptionError(
            f"the weight of a loss must be a finite number, not {front} as in {text!r}"
        )
    start = names[0] if options.output is None else options.output
    if start not in names:
        raise OptionError(f"the model has no output {start!r}: it has {', '.join(names)}")
    if name in names:
        return weight, Output(name)
    if name == "cross-entropy":
        labels = _unused(model, "labels")
        return weight, CrossEntropy(start, labels, options.axis, options.smoothing)
    if name == "mse":
        return weight, SquaredError(start, _unused(model, "target"))
    if name == "distillation":
        teacher = _unused(model, "teacher")
        return weight, Distillation(start, teacher, options.axis, options.temperature)
    raise OptionError(
        f"unknown loss {name!r}: choose from {', '.join(LOSSES)}, or name an output: {', '.join(names)}"
    )


def _unused(model: ir.Model, name: str) -> str:
    """The name, or if the model has it already, with `_` behind."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.initializers.values())}
    taken.update(value.name for node in model.graph for value in node.outputs)
    while name in taken:
        name += "_"
    return name


def _targets(model: ir.Model, patterns: Sequence[str]) -> list[str]:
    own = [
        weight
        for weight in weights(model)
        if weight.dtype.is_floating_point() and has_gradient(model, weight)
    ]
    if not patterns:
        found = [weight.name for weight in own if len(weight.shape) > 0]
        if not found:
            raise NoGradientError("the model has no weights of a float type: say --wrt NAME")
        return list(dict.fromkeys(found))
    values = [*model.graph.inputs, *(v for node in model.graph for v in node.outputs)]
    every = [*(weight.name for weight in own), *(value.name or "" for value in values)]
    names = [name for name in dict.fromkeys(every) if name]
    chosen: list[str] = []
    for pattern in patterns:
        fit = [name for name in names if name == pattern or fnmatchcase(name, pattern)]
        if not fit:
            raise OptionError(
                f"--wrt {pattern!r} fits no float weight, input or value of the model"
            )
        chosen += fit
    return list(dict.fromkeys(chosen))
