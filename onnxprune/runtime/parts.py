"""A batch in parts, each on a core of its own.

Many of onnxruntime's kernels run on one thread whatever a session is allowed, and what a layer makes of a large batch
does not fit into caches. So where all that a model gives are means over the samples of its batch, a few samples at a
time are faster: each core takes its parts of the batch, from the first node to the last, and the means are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import onnxruntime as ort

from onnxprune.errors import ModelError
from onnxprune.runtime.sessions import ORT_ERRORS, cores, one_line

__all__ = ["MeanRunner", "parts"]

LEAST, MOST = 4, 16
"""Samples of a part."""
LARGE = 1 << 28
"""Bytes of means beyond which a batch is one part: every core keeps means of its own."""

Arrays = dict[str, np.ndarray]


def parts(samples: int, size: int, most: int | None = None) -> list[slice]:
    """A batch in as few parts as can be, and those as equal as can be.

    Args:
        samples: The size of the batch.
        size: Bytes of the means.
        most: Samples of a part at most; None: as many as are fast, and two parts unless those would be too small.
    """
    most = most or min(MOST, max(-(-samples // 2), LEAST))
    count = 1 if size > LARGE else -(-samples // most)
    bounds = [samples * k // count for k in range(count + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]


class MeanRunner:
    """Outputs that are means over the samples of a batch, by parts of it.

    Args:
        make: Makes a session with so many threads within an operator. All that it gives are means over the first
            axis of its inputs but those that are fixed.
        threads: How many cores to use; None: all that there are.
    """

    def __init__(
        self, make: Callable[[int], ort.InferenceSession], threads: int | None = None
    ) -> None:
        self._make, self._cores = make, threads or cores()
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._sums: list[Arrays] = []
        self._pool = ThreadPoolExecutor(self._cores, "parts")

    def run(
        self,
        batch: Mapping[str, np.ndarray],
        slices: Sequence[slice],
        fixed: Mapping[str, ort.OrtValue] | None = None,
    ) -> Arrays:
        """The means over a batch, by the outputs' names; valid until the next run.

        Args:
            batch: Inputs with the samples along the first axis.
            slices: The parts of the batch.
            fixed: Inputs that are the same for all parts.

        Raises:
            ModelError: onnxruntime fails.
        """
        workers = min(len(slices), self._cores)
        made = self._session(max(self._cores // workers, 1))
        while len(self._sums) < workers:
            self._sums.append(_buffers(made))
        count = slices[-1].stop
        whole = slices[0].stop

        def work(worker: int) -> None:
            spare: Arrays = {}
            for number, part in enumerate(slices[worker::workers]):
                if number == 1:
                    spare = _buffers(made)
                into = spare or self._sums[worker]
                _run(made, {name: array[part] for name, array in batch.items()}, fixed or {}, into)
                share = (part.stop - part.start) / whole
                for name, array in into.items():
                    if share != 1:
                        np.multiply(array, share, out=array)
                    if into is spare:
                        self._sums[worker][name] += array

        list(self._pool.map(work, range(workers)))
        list(self._pool.map(lambda name: self._mean(name, workers, whole / count), self._sums[0]))
        return self._sums[0]

    def _mean(self, name: str, workers: int, share: float) -> None:
        total = self._sums[0][name]
        for other in self._sums[1:workers]:
            total += other[name]
        if share != 1:
            total *= share

    def _session(self, threads: int) -> ort.InferenceSession:
        if threads not in self._sessions:
            self._sessions[threads] = self._make(threads)
        return self._sessions[threads]


_TYPES = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


def _buffers(made: ort.InferenceSession) -> Arrays:
    return {
        output.name: np.zeros(output.shape, _TYPES[output.type]) for output in made.get_outputs()
    }


def _run(
    made: ort.InferenceSession,
    feed: Mapping[str, np.ndarray],
    fixed: Mapping[str, ort.OrtValue],
    into: Arrays,
) -> None:
    """Runs a session with its outputs going where they should."""
    known = {value.name for value in made.get_inputs()}
    binding = made.io_binding()
    try:
        for name, array in feed.items():
            if name in known:
                binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, value in fixed.items():
            if name in known:
                binding.bind_ortvalue_input(name, value)
        for name, array in into.items():
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        made.run_with_iobinding(binding)
    except ORT_ERRORS as error:
        raise ModelError(f"onnxruntime cannot run the model: {one_line(error)}") from error
