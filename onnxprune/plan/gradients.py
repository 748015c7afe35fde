"""What the planning of channels and of masks asks of sampled gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import onnx_ir as ir

from onnxprune.dims import Dim, Keep, Tracing
from onnxprune.errors import OptionError
from onnxprune.graph import Weight
from onnxprune.graph.patterns import is_named
from onnxprune.options import PruneOptions
from onnxprune.plan.budget import macs_cost
from onnxprune.plan.contraction import operands
from onnxprune.plan.weights import weight_names
from onnxprune.progress import Progress
from onnxprune.runtime.dataset import Dataset
from onnxprune.sampling.elements import element_statistics
from onnxprune.sampling.gates import Gates
from onnxprune.sampling.objective import Objective, objective
from onnxprune.sampling.quadratic import WAYS, Forms, Quadratic, SignedSums
from onnxprune.scores import Context, get_criterion

__all__ = [
    "element_context",
    "goal_of",
    "loss_note",
    "masks_context",
    "signed_sums",
    "uses_gradients",
]

AFFORDABLE = 3e10
"""MACs of forward runs that drawing more than one answer for each sample may take."""
MOST_DRAWS = 8
NODE = 2e4
"""MACs that take as long as a node does at least: recurrent layers that are written out have thousands."""
LITTLE = 3e9
"""MACs of a pass of all samples up to which all ways are tried."""


def uses_gradients(options: PruneOptions) -> bool:
    """Whether the criterion is one of sampled gradients."""
    return get_criterion(options.criterion).on_gradients


def goal_of(model: ir.Model, data: Dataset | None, options: PruneOptions) -> Objective:
    """The loss that the options' criterion is about.

    Raises:
        OptionError: There are no samples.
    """
    if data is None:
        raise OptionError(
            f"the criterion {options.criterion} runs the model on samples: give some with --data"
        )
    kind = get_criterion(options.criterion).loss
    return objective(model, data, options.seed, options.providers, kind)


def loss_note(model: ir.Model, data: Dataset | None, options: PruneOptions) -> tuple[str, ...]:
    """What the gradients were of, for the report; empty where the criterion has none."""
    if not uses_gradients(options) or data is None:
        return ()
    return (f"gradients of {len(data)} samples: {goal_of(model, data, options).note}",)


def masks_context(
    model: ir.Model, options: PruneOptions, data: Dataset | None, progress: Progress
) -> Context:
    """What the criterion needs to know about the weights that masks may touch."""
    if not uses_gradients(options):
        return Context(options.seed)
    names = weight_names(model)
    chosen = {
        names[operand.weight.value]: operand.weight
        for operand in operands(model)[0]
        if not is_named(operand.names, options.exclude)
    }
    return element_context(model, chosen, options, data, progress)


def element_context(
    model: ir.Model,
    chosen: Mapping[str, Weight],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> Context:
    """What an element criterion on gradients needs to know about some weights.

    Args:
        model: The model, without local functions.
        chosen: Its weights by the name that the criterion will ask for.
        options: The criterion, the providers and the seed.
        data: The samples.
        progress: Where the sampling is shown.

    Raises:
        OptionError: There are no samples.
        NoGradientError: A weight has no gradient, or an op no rule.
    """
    goal = goal_of(model, data, options)
    assert data is not None
    kinds = (get_criterion(options.criterion).statistic,)
    statistics = element_statistics(model, chosen, kinds, goal, data, progress, options.providers)
    return Context(options.seed, statistics)


def draws_for(goal: Objective, effort: float) -> int:
    """How many answers to draw for each sample: more of a small model, one of a large one, one where none are drawn."""
    return 1 if goal.forward is None else int(min(max(AFFORDABLE // effort, 1), MOST_DRAWS))


def signed_sums(
    tracing: Tracing,
    dims: Sequence[Dim],
    options: PruneOptions,
    data: Dataset | None,
    progress: Progress,
) -> list[Callable[[], SignedSums]]:
    """The losses of indices by signed sums of w dL/dw, in a few ways of which the best is to be found by trying.

    Each is made anew as often as it is called.

    Raises:
        OptionError: There are no samples.
        NoGradientError: An op has no rule.
    """
    goal = goal_of(tracing.model, data, options)
    assert data is not None
    gates, before = Gates(tracing, dims, goal, data, options.providers), list[float]()
    effort = len(data) * max(macs_cost(tracing).total({}), NODE * gates.nodes)
    gates.draw(draws_for(goal, effort))

    def sample(keep: Keep) -> Quadratic:
        forms = Forms(dims)
        for number, (outcome, derivatives) in enumerate(gates.each(keep, progress)):
            if not keep:
                before.append(outcome)
            forms.add(derivatives, outcome - before[number])
        return forms.means()

    first = sample({})
    little = goal.is_linear and effort <= LITTLE
    return [
        partial(SignedSums, dims, lambda keep: sample(keep) if keep else first, way)
        for way in WAYS
        if little or not way.joins
    ]
