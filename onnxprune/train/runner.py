"""Running a step over and over with weights and state staying where they are.

There are two sets of buffers on the device. A step reads one and writes the other, through IOBinding,
and the next step goes the other way: nothing carried is copied or allocated. On the CPU a batch goes through in parts
(see `onnxprune.runtime.parts`). Where statistics of a batch are trained with, they are those of a part (Hoffer, Hubara,
Soudry, NeurIPS 2017, arXiv:1705.08741), and parts are larger.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.runtime.parts import MeanRunner, parts
from onnxprune.runtime.providers import resolve
from onnxprune.runtime.sessions import ORT_ERRORS, one_line
from onnxprune.train.blocked import fed_session
from onnxprune.train.halves import halves
from onnxprune.train.lift import Arrays
from onnxprune.train.step import Step

__all__ = ["Runner", "evaluate"]

LIVE = 32
"""Samples of a part at most, where they see each other."""


class Runner:
    """Weights and state in two sets of buffers, and sessions that take them a step further.

    Args:
        step: The step; starts from its `start`.
        providers: onnxruntime providers by name.
        threads: Cores to use; None: all there are.

    Attributes:
        step: The step.
        count: Steps taken.
        divides: Whether batches go through in parts.
    """

    def __init__(
        self, step: Step, providers: Sequence[str] = ("cpu",), threads: int | None = None
    ) -> None:
        self.step = step
        self.count = 0
        self._providers, self._threads = providers, threads
        first = resolve(providers)[0][0]
        self.divides = first == "CPUExecutionProvider" and _takes_any_batch(step)
        self._device = "cuda" if first == "CUDAExecutionProvider" else "cpu"
        self._buffers = [
            {name: self._value(array.copy()) for name, array in step.start.items()},
            {name: self._value(np.empty_like(array)) for name, array in step.start.items()},
        ]
        self._loss = np.zeros((), np.float32)
        self._loss_value = ort.OrtValue.ortvalue_from_numpy(self._loss)  # the same memory

    def run(self, batch: Mapping[str, np.ndarray], rate: float) -> float:
        """Takes one step.

        Args:
            batch: Inputs of the model and of the loss.
            rate: The learning rate.

        Returns:
            The loss before the step.

        Raises:
            ModelError: onnxruntime fails on the batch.
        """
        numbers: Arrays = {
            self.step.rate: np.array(rate, np.float32),
            self.step.step: np.array(self.count + 1, np.int64),
        }
        now = self._buffers[self.count % 2]
        slices = self._parts(_samples(batch))
        if len(slices) > 1:
            means = self._first.run(batch, slices, now)
            self._run(self._second, {**means, **numbers})
        else:
            self._run(self._whole, {**batch, **numbers})
        self.count += 1
        return float(self._loss)

    def _parts(self, samples: int) -> list[slice]:
        if not self.divides:
            return []
        size = sum(self.step.start[name].nbytes for name in self.step.weights)
        return parts(samples, size, None if self.step.alone else LIVE)

    @cached_property
    def _whole(self) -> ort.InferenceSession:
        return self._session(self.step.model, self._threads)

    @cached_property
    def _halves(self) -> tuple[ir.Model, ir.Model]:
        return halves(self.step)

    @cached_property
    def _first(self) -> MeanRunner:
        return MeanRunner(lambda threads: self._session(self._halves[0], threads), self._threads)

    @cached_property
    def _second(self) -> ort.InferenceSession:
        return self._session(self._halves[1], self._threads)

    def _session(self, model: ir.Model, threads: int | None) -> ort.InferenceSession:
        return fed_session(model, self._providers, threads, frugal=True)

    def _run(self, made: ort.InferenceSession, feed: Mapping[str, np.ndarray]) -> None:
        """Runs what ends with the update, from one set of buffers into the other."""
        source, target = self._buffers[self.count % 2], self._buffers[1 - self.count % 2]
        known = {value.name for value in made.get_inputs()}
        binding = made.io_binding()
        for name, value in source.items():
            if name in known:
                binding.bind_ortvalue_input(name, value)
        for name, output in self.step.carried.items():
            binding.bind_ortvalue_output(output, target[name])
        binding.bind_ortvalue_output(self.step.loss, self._loss_value)
        fed = {k: np.ascontiguousarray(v) for k, v in feed.items() if k in known}
        fed = {k: v.reshape(feed[k].shape) for k, v in fed.items()}  # scalars have become vectors
        try:
            for name, array in fed.items():
                binding.bind_cpu_input(name, array)
            made.run_with_iobinding(binding)
        except ORT_ERRORS as error:
            raise ModelError(
                f"onnxruntime cannot run the training step: {one_line(error)}"
            ) from error

    def restart(self) -> None:
        """Goes back to where the step starts from."""
        self.count = 0
        for name, array in self.step.start.items():
            self._buffers[0][name].update_inplace(np.ascontiguousarray(array))

    def values(self, names: Mapping[str, str]) -> dict[str, ort.OrtValue]:
        """Carried values as they are now, without a copy; valid until the next step.

        Args:
            names: Name to return to name of the carried input.
        """
        now = self._buffers[self.count % 2]
        return {name: now[source] for name, source in names.items()}

    def arrays(self, names: Mapping[str, str]) -> Arrays:
        """Copies of carried values as they are now."""
        return {name: np.array(value.numpy()) for name, value in self.values(names).items()}

    def _value(self, array: np.ndarray) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)


def _takes_any_batch(step: Step) -> bool:
    """Whether the samples' axis of all that is fed is open."""
    own = {*step.start, step.rate, step.step}
    shapes = [value.shape for value in step.model.graph.inputs if value.name not in own]
    return all(shape and not isinstance(shape[0], int) for shape in shapes)


def _samples(batch: Mapping[str, np.ndarray]) -> int:
    """How many samples a batch has; 0 where its arrays do not agree."""
    counts = {array.shape[0] if array.ndim else 0 for array in batch.values()}
    return counts.pop() if len(counts) == 1 else 0


def evaluate(
    made: ort.InferenceSession,
    weights: Mapping[str, ort.OrtValue],
    batch: Mapping[str, np.ndarray],
) -> list[np.ndarray]:
    """All outputs of a session on one batch, with weights that are on the device already.

    Raises:
        ModelError: onnxruntime fails.
    """
    known = {value.name for value in made.get_inputs()}
    try:
        binding = made.io_binding()
        for name, value in weights.items():
            if name in known:
                binding.bind_ortvalue_input(name, value)
        for name, array in batch.items():
            if name in known:
                binding.bind_cpu_input(name, np.asarray(array, order="C"))
        for output in made.get_outputs():
            binding.bind_output(output.name)
        made.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())
    except ORT_ERRORS as error:
        raise ModelError(f"onnxruntime cannot evaluate the model: {one_line(error)}") from error
