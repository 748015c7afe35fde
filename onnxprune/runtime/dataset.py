"""Data sets as arrays: samples in, batches of feeds out, checked against what the model takes.

Arrays come in one of two layouts, told apart by their rank:

* batched: the rank of the model's input, with the samples along axis 0, as in (N, 3, 224, 224);
* stacked: one axis more, each entry along axis 0 being one whole feed. Models whose inputs share
  no batch axis (a recurrent state, a sampling rate) need this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from onnxprune.errors import DataError

__all__ = ["Dataset", "InputSpec", "affordable", "hold_aside", "input_specs", "make_dataset"]

_STACK = "give each array one axis more in front, so that every entry along it is one whole input"


@dataclass(frozen=True)
class Dataset:
    """Samples for a model.

    Attributes:
        inputs: Input name to array, samples along axis 0.
        labels: Right answers, samples along axis 0: class indices where integer, targets of a
            regression where float. None where there are none.
        fixed_batch: Batch size that the model insists on; None where it takes any.
        stacked: Whether each entry along axis 0 is a whole feed, batch axis included or absent.
        note: What was assumed when the data were read, in words for the report.
    """

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    fixed_batch: int | None = None
    stacked: bool = False
    note: str = ""

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def batches(self, size: int = 32) -> Iterator[dict[str, np.ndarray]]:
        """Feeds in order, all samples once.

        Args:
            size: Samples a feed at most; a fixed batch of the model, or stacked data, overrule it.
        """
        for rows in self.batch_rows(size):
            yield self.feed(rows)

    def batch_rows(self, size: int = 32) -> Iterator[slice]:
        """Which samples each of `batches(size)` holds."""
        if self.fixed_batch is not None:
            size = self.fixed_batch
        if self.stacked:
            size = 1
        for start in range(0, len(self), size):
            yield slice(start, min(start + size, len(self)))

    def feed(self, rows: slice) -> dict[str, np.ndarray]:
        """The samples of a slice as one feed; of stacked data only the first of them."""
        if self.stacked:
            return {name: array[rows.start, ...] for name, array in self.inputs.items()}
        return {name: array[rows] for name, array in self.inputs.items()}

    @property
    def shapes_of_one(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the smallest feed: one sample, or one batch where the model fixes its size."""
        feed = self.feed(slice(0, self.fixed_batch or 1))
        return {name: array.shape for name, array in feed.items()}

    def take(self, count: int) -> Dataset:
        """The first `count` samples, rounded up to whole batches of a fixed size."""
        if self.fixed_batch is not None:
            count = -(-count // self.fixed_batch) * self.fixed_batch
        return self.subset(np.arange(min(count, len(self))))

    def some(self, count: int, seed: int) -> Dataset:
        """So many samples at most, by chance, in order; rounded up to whole batches of a fixed size."""
        unit = self.fixed_batch or 1
        count = -(-count // unit) * unit
        order = np.random.default_rng([seed, 1]).permutation(len(self))
        return self if count >= len(self) else self.subset(np.sort(order[-count:]))

    def can_spare(self, fewest: int) -> bool:
        """Whether some can be held aside: there are so many at least, in two batches where their size is fixed."""
        return len(self) >= max(fewest, 2 * (self.fixed_batch or 1))

    def subset(self, indices: Sequence[int] | np.ndarray) -> Dataset:
        """The samples at the given places, in that order."""
        rows = np.asarray(indices, np.intp)
        return replace(
            self,
            inputs={name: array[rows] for name, array in self.inputs.items()},
            labels=None if self.labels is None else self.labels[rows],
        )


def hold_aside(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """The samples to work on, and those to judge on what came of it: at least one batch of each.

    With a share of 0 both are all of them.

    Raises:
        DataError: There are too few samples to hold any aside.
    """
    if not share:
        return data, data
    unit = data.fixed_batch or 1
    count = max(1, round(share * len(data) / unit)) * unit
    if count >= len(data):
        told = f": the model takes {unit} at once" if unit > 1 else ""
        raise DataError(
            f"{len(data)} samples are too few to work on some and hold others aside{told}"
        )
    order = np.random.default_rng([seed, 1]).permutation(len(data))
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))


def affordable(each: float, work: float, fewest: int, most: int) -> int:
    """How many samples, of which each takes so much, can be had for so much work, between two bounds."""
    return min(most, max(fewest, int(work / max(each, 1))))


@dataclass(frozen=True)
class InputSpec:
    """What a model takes at one input.

    Attributes:
        name: Name of the input.
        dtype: NumPy type of its elements.
        shape: Sizes by axis, None where any size goes; None where the model does not say the rank.
        required: False where the model has a default for it.
    """

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None
    required: bool = True

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype} of any shape"
        return f"{self.dtype} {_words(self.shape)}"


def input_specs(model: ir.Model) -> dict[str, InputSpec]:
    """The inputs of a model by name, in order; weights that are listed as inputs are not required."""
    specs = {}
    for value in model.graph.inputs:
        name = value.name or ""
        shape = None
        if value.shape is not None:
            # Exporters write 0 and -1 where they mean a size known only at run time.
            shape = tuple(d if isinstance(d, int) and d > 0 else None for d in value.shape.dims)
        dtype = np.dtype(np.float32 if value.dtype is None else value.dtype.numpy())
        specs[name] = InputSpec(name, dtype, shape, value.name not in model.graph.initializers)
    return specs


def make_dataset(
    arrays: Mapping[str, np.ndarray],
    model: ir.Model,
    labels: np.ndarray | None = None,
    note: str = "",
) -> Dataset:
    """A data set from arrays, after all that can be wrong with them has been looked for.

    Args:
        arrays: Input name to array, samples along axis 0 (see the module for the two layouts).
        model: The model that the data are for.
        labels: Right answers, one row a sample.
        note: What was assumed when the data were read.

    Raises:
        DataError: An input is missing, there is an array too many, or one has a wrong type, shape,
            length or NaN; the message names it and says what was expected and what came.
    """
    specs = input_specs(model)
    _check_names(arrays, specs)
    stacked = _is_stacked(arrays, specs)
    for name, array in arrays.items():
        _check_array(array, specs[name], stacked)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise DataError(f"the inputs have different numbers of samples: {listed}")
    count = next(iter(lengths.values()))
    if not count:
        raise DataError("the data set has no samples")
    batch = None if stacked else _fixed_batch([specs[name] for name in arrays])
    if batch is not None and count % batch:
        raise DataError(
            f"the model takes batches of exactly {batch}, which does not divide the {count} samples"
        )
    if labels is not None:
        labels = _checked_labels(labels, count, model)
    return Dataset(dict(arrays), labels, batch, stacked, note)


def _check_names(arrays: Mapping[str, np.ndarray], specs: Mapping[str, InputSpec]) -> None:
    came = ", ".join(map(repr, arrays)) or "nothing"
    for spec in specs.values():
        if spec.required and spec.name not in arrays:
            raise DataError(
                f"the data lack the model's input {spec.name!r} ({spec}); found: {came}"
            )
    for name in arrays:
        if name not in specs:
            takes = ", ".join(repr(spec.name) for spec in specs.values() if spec.required)
            raise DataError(f"the data have {name!r}, which is no input of the model ({takes})")
    if not arrays:
        raise DataError("the model has no inputs, so data cannot be given to it")


def _is_stacked(arrays: Mapping[str, np.ndarray], specs: Mapping[str, InputSpec]) -> bool:
    """Whether all arrays whose rank is known have the extra axis of the stacked layout."""
    extra = [
        array.ndim - len(shape)
        for name, array in arrays.items()
        if (shape := specs[name].shape) is not None
    ]
    return bool(extra) and all(axes == 1 for axes in extra)


def _check_array(array: np.ndarray, spec: InputSpec, stacked: bool) -> None:
    where = f"input {spec.name!r}"
    if array.dtype != spec.dtype and not (spec.dtype.kind == "O" and array.dtype.kind in "OUS"):
        raise DataError(
            f"{where} must be {spec.dtype}, the data are {array.dtype}; "
            f"convert with .astype({str(spec.dtype)!r})"
        )
    if spec.shape == () and not stacked:
        raise DataError(f"{where} is a single number, without an axis of samples; {_STACK}")
    if spec.shape is not None:
        expected = (None, *spec.shape) if stacked else (None, *spec.shape[1:])
        fits = len(expected) == array.ndim and all(
            want is None or want == have for want, have in zip(expected, array.shape, strict=True)
        )
        if not fits:
            raise DataError(
                f"{where} must have shape {_words(expected, 'N')} with the samples along axis 0, "
                f"the data have {_words(array.shape)}"
            )
    if array.dtype.kind in "fcV" and (bad := _count_nan(array)):
        raise DataError(f"{where} has {bad} NaN values; the data must be free of them")
    if array.dtype.kind in "fV" and (bad := _count(np.isposinf, array)):  # -inf masks
        raise DataError(f"{where} has {bad} infinite values; the data must be free of them")


def _count_nan(array: np.ndarray) -> int:
    return _count(np.isnan, array)


def _count(what: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> int:
    return sum(int(np.count_nonzero(what(part))) for part in array)


def _fixed_batch(specs: Sequence[InputSpec]) -> int | None:
    sizes = {spec.shape[0] for spec in specs if spec.shape}
    known = {size for size in sizes if size is not None}
    if len(known) > 1:
        raise DataError(f"the model's inputs share no batch axis; {_STACK}")
    return next(iter(known), None)


def _checked_labels(labels: np.ndarray, count: int, model: ir.Model) -> np.ndarray:
    if labels.ndim == 0 or len(labels) != count:
        have = len(labels) if labels.ndim else "a scalar for"
        raise DataError(f"there are {count} samples, but {have} labels")
    if labels.dtype.kind in "fV":
        if bad := _count_nan(labels):
            raise DataError(
                f"the labels have {bad} NaN values among {labels.size}; the data must be free of them"
            )
        return labels
    if labels.dtype.kind not in "iub":
        raise DataError(f"the labels must be integers or floats, not {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    classes = [_classes(value, labels.ndim) for value in model.graph.outputs]
    if low < 0:
        raise DataError(f"labels must be class indices from 0, but there is {low}")
    if classes and all(number is not None for number in classes):
        most = max(number for number in classes if number is not None)
        if most > 1 and high >= most:
            raise DataError(
                f"labels must be below {most}, the number of classes the model gives, "
                f"but there is {high}"
            )
    return labels.astype(np.int64)


def _classes(output: ir.Value, label_rank: int) -> int | None:
    """Number of classes that an output can tell apart; None where it is not said."""
    if output.shape is None or len(output.shape.dims) <= label_rank:
        return None
    sizes = [d if isinstance(d, int) and d > 0 else None for d in output.shape.dims[1:]]
    if any(size is None for size in sizes):
        return None
    return max(size for size in sizes if size is not None)


def _words(shape: Sequence[int | None], unknown: str = "?") -> str:
    """A shape as `(N, 3, 224, 224)`."""
    first = unknown
    parts = []
    for axis, size in enumerate(shape):
        parts.append(str(size) if size is not None else first if axis == 0 else "?")
    return f"({', '.join(parts)})"
