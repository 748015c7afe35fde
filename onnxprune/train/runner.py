"""Running a step over and over with weights and state staying where they are.

There are two sets of buffers on the device. A step reads one and writes the other, through IOBinding,
and the next step goes the other way: nothing carried is copied or allocated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.runtime.sessions import ORT_ERRORS, one_line
from onnxprune.train.blocked import fed_session
from onnxprune.train.lift import Arrays
from onnxprune.train.step import Step

__all__ = ["Runner", "evaluate"]


class Runner:
    """Weights and state in two sets of buffers, and a session that takes them a step further.

    Args:
        step: The step; starts from its `start`.
        providers: onnxruntime providers by name.
        threads: Threads within an operator; None leaves the choice to onnxruntime.
    """

    def __init__(
        self, step: Step, providers: Sequence[str] = ("cpu",), threads: int | None = None
    ) -> None:
        self.step = step
        self.count = 0
        self._session = fed_session(step.model, providers, threads, frugal=True)
        self._device = "cuda" if "CUDAExecutionProvider" in self._session.get_providers() else "cpu"
        self._buffers = [
            {name: self._value(array.copy()) for name, array in step.start.items()},
            {name: self._value(np.empty_like(array)) for name, array in step.start.items()},
        ]
        self._loss = np.zeros((), np.float32)
        self._loss_value = ort.OrtValue.ortvalue_from_numpy(self._loss)  # the same memory
        self._bindings = [self._binding(0, 1), self._binding(1, 0)]
        self._fed = {value.name for value in self._session.get_inputs()}

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
        binding = self._bindings[self.count % 2]
        feed = {
            **batch,
            self.step.rate: np.array(rate, np.float32),
            self.step.step: np.array(self.count + 1, np.int64),
        }
        fed = {k: np.ascontiguousarray(v) for k, v in feed.items() if k in self._fed}
        fed = {k: v.reshape(feed[k].shape) for k, v in fed.items()}  # scalars have become vectors
        try:
            for name, array in fed.items():
                binding.bind_cpu_input(name, array)
            self._session.run_with_iobinding(binding)
        except ORT_ERRORS as error:
            raise ModelError(
                f"onnxruntime cannot run the training step: {one_line(error)}"
            ) from error
        self.count += 1
        return float(self._loss)

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

    def _binding(self, source: int, target: int) -> ort.IOBinding:
        binding = self._session.io_binding()
        known = {value.name for value in self._session.get_inputs()}
        for name, value in self._buffers[source].items():
            if name in known:
                binding.bind_ortvalue_input(name, value)
        for name, output in self.step.carried.items():
            binding.bind_ortvalue_output(output, self._buffers[target][name])
        binding.bind_ortvalue_output(self.step.loss, self._loss_value)
        return binding


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
