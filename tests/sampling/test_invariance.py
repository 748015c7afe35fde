"""Scores do not depend on how samples are ordered or batched, and are what their definitions say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.autodiff import CrossEntropy, gradient
from onnxprune.dims import trace
from onnxprune.graph import load, weights
from onnxprune.options import PruneOptions
from onnxprune.plan.channels import candidates
from onnxprune.progress import Silent
from onnxprune.runtime import providers
from onnxprune.runtime.data import read_data
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.measure import measure
from onnxprune.runtime.sessions import run, session
from onnxprune.sampling import Forms, Gates, element_statistics, objective
from onnxprune.sampling.elements import MEAN, RMS
from onnxprune.scores.criterion import LossKind
from tests.models import DIGITS

KINDS: list[LossKind] = ["labels", "predictions", "outputs"]


def samples(model: ir.Model, count: int = 4) -> Dataset:
    return read_data(DIGITS / "digits_calib.npz", model).take(count)


def fixed(name: str, batch: int, path: Path) -> Path:
    """A digits network that takes batches of exactly so many."""
    model = onnx.load(DIGITS / name)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)
    return path


def squares(
    model: ir.Model, data: Dataset, kind: LossKind, provider: str = "cpu"
) -> list[np.ndarray]:
    tracing = trace(model, measure(model))
    dims = [info.dim for info in candidates(tracing, PruneOptions(criterion="magnitude"))]
    goal = objective(tracing.model, data, 0, (provider,), kind)
    found = Forms(dims)
    for _, derivatives in Gates(tracing, dims, goal, data, (provider,)).each({}, Silent()):
        found.add(derivatives)
    return list(found.means().forms.values())


def close(a: list[np.ndarray], b: list[np.ndarray]) -> None:
    assert a
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5 * float(np.abs(x).max()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["digits_resnet.onnx", "digits_vit.onnx"])
def test_the_order_of_the_samples_changes_nothing(name: str, kind: LossKind) -> None:
    model = load(DIGITS / name)
    data = samples(model)
    turned = data.subset(np.random.default_rng(3).permutation(len(data)))
    close(squares(model, data, kind), squares(model, turned, kind))


def test_a_model_of_a_fixed_batch_scores_alike(tmp_path: Path) -> None:
    model = load(DIGITS / "digits_resnet.onnx")
    rigid = load(fixed("digits_resnet.onnx", 2, tmp_path / "fixed.onnx"))
    one, other = squares(model, samples(model), "labels"), squares(rigid, samples(rigid), "labels")
    close(one, other)


@pytest.mark.parametrize("batch", [None, 2, 4])
def test_statistics_of_elements_change_with_neither_order_nor_batch(
    batch: int | None, tmp_path: Path
) -> None:
    def statistics(model: ir.Model, data: Dataset) -> list[np.ndarray]:
        chosen = {w.name: w for w in weights(model) if len(w.shape) == 4}
        goal = objective(model, data)
        found = element_statistics(model, chosen, (MEAN, RMS), goal, data, Silent())
        return [found[kind][name] for kind in (MEAN, RMS) for name in chosen]

    model = load(DIGITS / "digits_resnet.onnx")
    other = model
    if batch is not None:
        other = load(fixed("digits_resnet.onnx", batch, tmp_path / "fixed.onnx"))
    turned = samples(other).subset(np.random.default_rng(3).permutation(4))
    close(statistics(model, samples(model)), statistics(other, turned))


def test_statistics_of_elements_are_of_single_samples() -> None:
    model = load(DIGITS / "digits_resnet.onnx")
    data = samples(model, 4)
    goal = objective(model, data)
    chosen = {w.name: w for w in weights(model) if len(w.shape) == 4}
    found = element_statistics(model, chosen, (MEAN, RMS), goal, data, Silent())
    loss = CrossEntropy(model.graph.outputs[0].name or "", reduction="sum")
    made = session(gradient(model, loss, list(chosen)))
    assert data.labels is not None
    rows = [
        run(made, {"image": data.inputs["image"][k : k + 1], "labels": data.labels[k : k + 1]})[1:]
        for k in range(len(data))
    ]
    for name, each in zip(chosen, zip(*rows, strict=True), strict=True):
        stack = np.stack(each).astype(np.float64)
        np.testing.assert_allclose(found[MEAN][name], np.abs(stack).mean(0), rtol=1e-4, atol=1e-9)
        np.testing.assert_allclose(
            found[RMS][name], np.sqrt((stack**2).mean(0)), rtol=1e-4, atol=1e-9
        )
        assert np.abs(stack.mean(0)).sum() < 0.97 * np.abs(stack).mean(0).sum()


def test_a_gate_is_the_derivative_of_shrinking_an_index() -> None:
    """Between the slopes to both sides of what one index carries, scaled in the weights that read it."""
    model = load(DIGITS / "digits_resnet.onnx")
    tracing = trace(model, measure(model))
    info = next(i for i in candidates(tracing, PruneOptions()) if len(i.slices) > 1)
    data = samples(model, 1)
    assert data.labels is not None
    data = replace(data, labels=(data.labels + 1) % 10)  # wrong ones: the loss is far from flat
    goal = objective(model, data)
    gates = Gates(tracing, [info.dim], goal, data)
    ((_, found),) = gates.each({}, Silent())
    feed = {"image": data.inputs["image"], **goal.answers({}, data.labels)}
    assert all(gate.holds is info.dim for gate in gates.found)

    def loss(j: int, step: float) -> float:
        mask = np.ones(info.size, np.float32)
        mask[j] += step
        masks = {f"gates/{k}": mask for k in range(len(gates.found))}
        return float(run(gates.session, {**feed, **masks})[0])

    h = 0.003
    slopes = np.array(
        [[(loss(j, h) - loss(j, 0)) / h, (loss(j, 0) - loss(j, -h)) / h] for j in range(3)]
    )
    derivatives, room = found[info.dim][:3], 1e-3 + 0.01 * np.abs(slopes).max(1)
    assert (derivatives > slopes.min(1) - room).all()
    assert (derivatives < slopes.max(1) + room).all()
    assert np.abs(derivatives).max() > 0.1


def test_scores_on_cuda_are_those_of_the_cpu() -> None:
    if "cuda" not in providers.available():
        pytest.skip("no CUDA provider: onnxruntime here has none, or there is no device")
    model = load(DIGITS / "digits_resnet.onnx")
    data = samples(model)
    close(squares(model, data, "labels"), squares(model, data, "labels", "cuda"))
