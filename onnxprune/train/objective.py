"""What training makes small: the error against labels, the distance from a teacher, or both.

    integer labels   cross-entropy, on the first output that has one axis more than the labels; else, for
                     0 and 1, binary cross-entropy on the first of their shape
    float labels     mean squared error, on the first output of their shape
    teacher          for each float output: KL divergence with temperature where it holds class scores
                     (it comes out of a Softmax, or is [samples, classes]), else mean squared error
                     Hinton, Vinyals, Dean 2015, arXiv:1503.02531
    both             (1 - a) labels + a teacher

The teacher runs in the same process. What it says about each sample is computed once where that is
small, and twice where images are mirrored, else batch by batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from onnxprune.autodiff import CrossEntropy, Distillation, Loss, SquaredError, Weighted
from onnxprune.errors import DataError, ModelError, OptionError
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.train.augment import augment, is_images
from onnxprune.train.binary import BinaryCrossEntropy
from onnxprune.train.memory import LARGEST, Memory

__all__ = ["Objective", "Source", "objective", "rows_of"]

LABELS = "train/labels"
TEACHER = "train/teacher/"


@dataclass(frozen=True)
class Objective:
    """A loss and where its inputs come from.

    Attributes:
        loss: Takes the inputs named below.
        labels: Shape that the labels of a batch get, the first axis left out; None: they are not used.
        teacher: Output of the teacher to the name of the loss's input.
        words: The loss in a few words.
    """

    loss: Loss
    labels: tuple[int, ...] | None = None
    teacher: Mapping[str, str] = field(default_factory=dict)
    words: str = ""


def objective(
    model: ir.Model,
    data: Dataset,
    teacher: ir.Model | None = None,
    *,
    temperature: float = 1.0,
    smoothing: float = 0.0,
    alpha: float = 0.5,
) -> Objective:
    """The objective that data and teacher allow.

    Args:
        model: The model to train.
        data: Samples, with or without labels.
        teacher: The original model; None trains on labels alone.
        temperature: Of the KL divergence, above 0.
        smoothing: Label smoothing, 0 <= s < 1.
        alpha: Share of the teacher where there are labels too.

    Raises:
        DataError: No labels and no teacher, or labels that go with no output.
        OptionError: A number is out of range.
    """
    if not 0 < temperature < float("inf"):
        raise OptionError(f"the temperature must be a finite number above 0, not {temperature}")
    if not (0 <= smoothing < 1 and 0 <= alpha <= 1):
        raise OptionError("label smoothing must be in [0, 1), the teacher's share in [0, 1]")
    rows = next(data.batch_rows(2))
    names = [value.name or "" for value in model.graph.outputs]
    outputs = dict(zip(names, run(session(model), data.feed(rows)), strict=True))
    outputs = {
        name: array
        for name, array in outputs.items()
        if isinstance(array, np.ndarray) and array.dtype.kind == "f"
    }
    use_labels = data.labels is not None and not (teacher is not None and alpha == 1)
    if use_labels:
        assert data.labels is not None
        supervised = _supervised(outputs, data.labels[rows], smoothing)
        if isinstance(supervised.loss, BinaryCrossEntropy) and data.labels.max() > 1:
            raise DataError(
                f"the model gives one score a sample, which tells 0 from 1, but there is a label "
                f"{data.labels.max()}"
            )
        if teacher is None or alpha == 0:
            return supervised
    if teacher is None:
        raise DataError("training needs labels in the data, or the original model as a teacher")
    distilled = _distilled(model, outputs, temperature)
    if not use_labels:
        return distilled
    loss = Weighted(((1.0 - alpha, supervised.loss), (alpha, distilled.loss)))
    words = f"{supervised.words} and {distilled.words}"
    return Objective(loss, supervised.labels, distilled.teacher, words)


class Source:
    """Feeds of a training or evaluation step: samples, labels, what the teacher says.

    Args:
        data: The samples.
        goal: What the loss needs.
        teacher: Session of the teacher, where the goal has one.
        batch: Samples a run of the teacher.
        known: What the teacher says about all samples, by its outputs' names, where that has been computed.
        ways: How images are moved about (see `augment`); the teacher then sees each batch anew.
        seed: Of that.

    Raises:
        OptionError: Images are to be moved about, and there are none.
    """

    def __init__(
        self,
        data: Dataset,
        goal: Objective,
        teacher: ort.InferenceSession | None = None,
        batch: int = 32,
        known: dict[str, np.ndarray] | None = None,
        *,
        ways: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        self.data, self._goal, self._teacher = data, goal, teacher
        self._known, self._ways = known, ways
        self._random = np.random.default_rng([seed, 2])
        if ways and (data.stacked or not any(map(is_images, data.inputs.values()))):
            raise OptionError("only images can be augmented, and the model takes none")
        if "mix" in ways and goal.labels is not None:
            raise OptionError(
                "mixed images have no label: only a teacher goes with them (--alpha 1)"
            )
        self._memory: Memory | None = None
        if known is None and goal.teacher and teacher is not None and not data.stacked:
            if not ways:
                self._known = self._all_outputs(batch)
            elif set(ways) == {"flip"} and self._gives_rows():
                self._memory = Memory(teacher, list(goal.teacher))

    def feed(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The samples at the given places as one feed (of stacked data a single one)."""
        data, goal = self.data, self._goal
        if data.stacked:
            feed = {name: array[rows[0], ...] for name, array in data.inputs.items()}
        else:
            feed = {name: array[rows] for name, array in data.inputs.items()}
        if self._ways:
            feed = augment(feed, self._ways, self._random)
        extra = {}
        if goal.labels is not None and data.labels is not None:
            extra[LABELS] = data.labels[rows].reshape(-1, *goal.labels)
            if extra[LABELS].dtype.kind == "f":
                extra[LABELS] = extra[LABELS].astype(np.float32)
        if goal.teacher and self._known is not None:
            extra |= {goal.teacher[name]: array[rows] for name, array in self._known.items()}
        elif goal.teacher and self._teacher is not None:
            ask = self._memory or (lambda feed: run(self._teacher, feed, list(goal.teacher)))
            extra |= dict(zip(goal.teacher.values(), ask(feed), strict=True))
        return {**feed, **extra}

    def _gives_rows(self) -> bool:
        """Whether the teacher takes any number of numeric samples, and gives a row for each."""
        assert self._teacher is not None
        plain = all(array.dtype.kind in "fiubV" for array in self.data.inputs.values())
        if self.data.fixed_batch is not None or not plain or len(self.data) < 3:
            return False
        for count in (2, 3):
            feed = self.data.feed(slice(0, count))
            try:
                said = run(self._teacher, feed, list(self._goal.teacher))
            except ModelError:  # of other sizes only
                return False
            if any(array.shape[:1] != (count,) for array in said):
                return False
        return True

    def _all_outputs(self, batch: int) -> dict[str, np.ndarray] | None:
        assert self._teacher is not None
        names = list(self._goal.teacher)
        found: list[list[np.ndarray]] = []
        for rows in self.data.batch_rows(batch):
            said = run(self._teacher, self.data.feed(rows), names)
            count = rows.stop - rows.start
            size = sum(array.nbytes for array in said) / count * len(self.data)
            if size > LARGEST or any(array.shape[:1] != (count,) for array in said):
                return None
            found.append(said)
        parts = zip(*found, strict=True)
        return {name: np.concatenate(part) for name, part in zip(names, parts, strict=True)}


def rows_of(data: Dataset, size: int, order: np.ndarray, *, whole: bool) -> list[np.ndarray]:
    """Places of the samples of each batch.

    Args:
        data: A fixed batch, or stacked data, overrule the size.
        size: Samples a batch.
        order: The places in order.
        whole: Leave out a last batch that is smaller (if it is not the only one).
    """
    size = 1 if data.stacked else data.fixed_batch or size
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return parts[:-1] if whole and len(parts) > 1 and len(parts[-1]) < size else parts


def _supervised(
    outputs: Mapping[str, np.ndarray], labels: np.ndarray, smoothing: float
) -> Objective:
    for name, array in outputs.items():
        if labels.dtype.kind == "f":
            squeezed = tuple(n for n in array.shape[1:] if n != 1)
            if squeezed == tuple(n for n in labels.shape[1:] if n != 1):
                error = SquaredError(name, target=LABELS)
                return Objective(error, array.shape[1:], words="squared error against the labels")
            continue
        for axis in (1, array.ndim - 1):
            places = np.delete(array.shape, axis) if array.ndim > 1 else np.array([])
            same = [n for n in places if n != 1] == [n for n in labels.shape if n != 1]
            if array.ndim > 1 and array.shape[axis] > 1 and same:
                entropy = CrossEntropy(name, labels=LABELS, axis=axis, smoothing=smoothing)
                shape = tuple(int(n) for n in places[1:])
                return Objective(entropy, shape, words="cross-entropy of the labels")
    for name, array in outputs.items():
        same = tuple(n for n in array.shape if n != 1) == tuple(n for n in labels.shape if n != 1)
        if labels.dtype.kind != "f" and same and (len(labels) > 1 or array.size == labels.size):
            loss = BinaryCrossEntropy(name, labels=LABELS)
            return Objective(loss, array.shape[1:], words="cross-entropy of yes and no")
    shapes = ", ".join(f"{name!r} {array.shape}" for name, array in outputs.items())
    raise DataError(
        f"no output goes with labels of shape {labels.shape} in training: {shapes or 'none is float'}; "
        "train without labels, against the original model"
    )


def _distilled(model: ir.Model, outputs: Mapping[str, np.ndarray], temperature: float) -> Objective:
    terms: list[tuple[float, Loss]] = []
    teacher = {}
    producers = {value.name: value.producer() for value in model.graph.outputs}
    for name, array in outputs.items():
        teacher[name] = f"{TEACHER}{name}"
        node = producers.get(name)
        axis = 1
        scores = array.ndim > 1 and array.shape[1] > 1 == math.prod(array.shape[2:])
        if node is not None and node.op_type in ("Softmax", "LogSoftmax") and array.ndim > 1:
            default = -1 if model.graph.opset_imports.get("", 1) >= 13 else 1
            axis = node.attributes.get_int("axis", default) % array.ndim
            scores = array.shape[axis] > 1
        if scores:
            loss: Loss = Distillation(
                name, teacher=teacher[name], axis=axis, temperature=temperature
            )
        else:
            loss = SquaredError(name, target=teacher[name])
        terms.append((1.0, loss))
    if not terms:
        raise DataError("the model has no float output that could follow a teacher's")
    loss = terms[0][1] if len(terms) == 1 else Weighted(tuple(terms))
    return Objective(loss, None, teacher, "distance from the original's outputs")
