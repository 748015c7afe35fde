"""One model held against another: drift, accuracy and latency in one result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError, OptionError
from onnxprune.graph import inline, load
from onnxprune.runtime.dataset import Dataset, input_specs
from onnxprune.runtime.latency import Speed, speed
from onnxprune.runtime.pieces import is_large, outputs
from onnxprune.runtime.providers import resolve
from onnxprune.runtime.sessions import session
from onnxprune.validation.accuracy import Accuracy, accuracy, accuracy_of
from onnxprune.validation.drift import Drift, drift, drift_between, matched_outputs

__all__ = ["Comparison", "compare"]

LEAST_RANDOM = 2
"""Random inputs that models run in pieces are compared on: every one costs a pass over all the weights."""

Feeds = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Comparison:
    """What the second model does differently from the first.

    Attributes:
        drift: Distance of each output.
        before: Accuracy of the first model; None without labels.
        after: Accuracy of the second model; None without labels.
        speed: Latency of both; None where it was not measured.
        samples: Samples, or random inputs, that the drift was measured on.
        random: Whether the inputs were random ones.
        providers: onnxruntime providers that ran the models.
        note: What was left out and why; empty if nothing was.
    """

    drift: tuple[Drift, ...]
    before: Accuracy | None
    after: Accuracy | None
    speed: Speed | None
    samples: int
    random: bool
    providers: tuple[str, ...]
    note: str = ""

    @property
    def drop(self) -> float | None:
        """Accuracy lost; None without labels."""
        if self.before is None or self.after is None:
            return None
        return self.before.value - self.after.value

    @property
    def relative_error(self) -> float:
        """The largest relative error of any output; those that are NaN do not count."""
        return max((d.relative_error for d in self.drift if d.relative_error >= 0), default=0.0)

    def to_dict(self) -> dict[str, object]:
        """All of it as plain data, ready for JSON."""
        return {
            "drift": [entry.to_dict() for entry in self.drift],
            "accuracy_before": self.before.to_dict() if self.before else None,
            "accuracy_after": self.after.to_dict() if self.after else None,
            "latency": self.speed.to_dict() if self.speed else None,
            "samples": self.samples,
            "random_inputs": self.random,
            "providers": list(self.providers),
            "note": self.note,
        }


def compare(
    a: ir.Model | str | Path,
    b: ir.Model | str | Path,
    data: Dataset | Feeds,
    *,
    providers: Sequence[str] = ("cpu",),
    seconds: float = 2.0,
    batch: int = 32,
    most: int = 512,
    threads: int | None = None,
) -> Comparison:
    """Holds model `b` against model `a` on the same inputs.

    Models too large to be held in memory twice are run piece by piece, and their latency is not measured.

    Args:
        a: The original.
        b: The pruned model, or any other with the same inputs and outputs.
        data: The user's samples; or, where there are none, feeds of random inputs.
        providers: onnxruntime providers by name, in order of preference.
        seconds: How long to measure the latency; 0 measures none.
        batch: Samples a run, where the models leave the choice.
        most: Samples used for the drift at most; the accuracy is that of all samples.
        threads: Threads within an operator; None leaves the choice to onnxruntime.

    Raises:
        ModelError: onnxruntime refuses a model, or the two cannot be compared.
        DataError: The labels do not go with the outputs.
        OptionError: There are no inputs to compare on.
    """
    if isinstance(data, Dataset):
        sample = data.take(most)
        feeds: Feeds = list(sample.batches(batch))
        count = len(sample)
    else:
        feeds, count = data, len(data)
    if not feeds:
        raise OptionError("there are no inputs to compare the models on")
    labelled = data if isinstance(data, Dataset) and data.labels is not None else None
    models = [model if isinstance(model, ir.Model) else load(model) for model in (a, b)]
    if any(is_large(model) for model in models):
        return _in_pieces(
            models[0], models[1], feeds, count, data, labelled, providers, batch, threads
        )
    before, after = (session(model, providers, threads=threads) for model in (a, b))
    return Comparison(
        drift=tuple(drift(before, after, feeds)),
        before=accuracy(before, labelled, batch) if labelled else None,
        after=accuracy(after, labelled, batch) if labelled else None,
        speed=speed(before, after, _single(data, feeds[0]), seconds=seconds) if seconds else None,
        samples=count,
        random=not isinstance(data, Dataset),
        providers=tuple(before.get_providers()),
    )


def _in_pieces(
    a: ir.Model,
    b: ir.Model,
    feeds: Feeds,
    count: int,
    data: Dataset | Feeds,
    labelled: Dataset | None,
    providers: Sequence[str],
    batch: int,
    threads: int | None,
) -> Comparison:
    """`compare` of models that are too large for a session each."""
    a, b = inline(a), inline(b)
    takes = [
        {spec.name: spec.dtype for spec in input_specs(model).values() if spec.required}
        for model in (a, b)
    ]
    if takes[0] != takes[1]:
        raise ModelError("the models take different inputs and cannot be compared")
    first, second = ([value.name or "" for value in model.graph.outputs] for model in (a, b))
    declared = [list(value.shape or ()) for value in a.graph.outputs]
    places = [second.index(name) for name in matched_outputs(first, second)]
    if labelled is not None:
        feeds = list(labelled.batches(batch))
        count = len(labelled)
    elif not isinstance(data, Dataset):
        feeds = feeds[:LEAST_RANDOM]
        count = len(feeds)
    ys = outputs(a, feeds, providers, threads=threads)
    zs = [[z[k] for k in places] for z in outputs(b, feeds, providers, threads=threads)]
    return Comparison(
        drift=tuple(drift_between(first, zip(ys, zs, strict=True), declared)),
        before=accuracy_of(first, ys, labelled, batch) if labelled else None,
        after=accuracy_of(first, zs, labelled, batch) if labelled else None,
        speed=None,
        samples=count,
        random=not isinstance(data, Dataset),
        providers=tuple(name for name, _ in resolve(providers)),
        note="the latency of models of this size is not measured: they were run piece by piece",
    )


def _single(data: Dataset | Feeds, feed: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """The smallest feed: one sample where the model takes any batch."""
    if isinstance(data, Dataset) and not data.stacked and data.fixed_batch is None:
        return {name: array[:1] for name, array in feed.items()}
    return feed
