"""Loss and all weight gradients: onnxruntime against PyTorch.

Same weights, same batch, same number of threads; every model runs in inference mode
(no dropout; the running statistics of BatchNorm are those of the batch, as of a trained network).
Each side is a process of its own; they take turns, and times are medians over them, ratios the medians of those of a
round; `fastest` is the ratio of the fastest turns, which other work on the machine disturbs least. Memory is what the
process grows by, at its peak, from before it loads the model. How far off the gradients are is told for both sides
against PyTorch in float64: the relative error of the gradient as a whole, and of the worst single weight. Needs torch
and torchvision, which the program itself does not.

    python benchmarks/gradients.py [--batch 8] [--threads 2] [--rounds 7] [--provider cpu] [MODEL ...]
    python benchmarks/gradients.py --exact | --agreement 20 [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from sides import Side, in_turns, serve

MODELS = ("resnet18", "mobilenet_v2", "vit_b_16", "lstm")
CLASSES = {"lstm": 10}
ZERO = 1e-9
"""Of the whole gradient: that of a weight below is zero but for rounding, as of the biases of an attention's keys."""
AGREED = 1e-4


def build(name: str) -> Any:
    """A model in inference mode, with seeded random weights."""
    import torch

    torchvision = _torchvision()
    torch.manual_seed(0)
    if name != "lstm":
        model = torchvision.models.get_model(name, weights=None).eval()
        for weight in model.parameters():  # equal tensors would be exported as one
            if bool((weight == weight.flatten()[0]).all()):
                weight.data += 0.1 * torch.randn_like(weight)
        norms = [part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)]
        for part in norms:
            part.momentum = 1.0
        if norms:
            with torch.no_grad():
                model.train()(torch.from_numpy(batch_of(name, 8)[0]))
        return model.eval()

    class Lstm(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(128, 256, num_layers=2)
            self.head = torch.nn.Linear(256, 10)

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(x.transpose(0, 1))[0][-1])

    return Lstm().eval()


_stubs: list[Any] = []  # keeps the definitions alive


def _torchvision() -> Any:
    """The package, also where it came without its compiled ops; none of these models uses one."""
    import torch

    try:
        import torchvision
    except RuntimeError:
        _stubs.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            _stubs[0].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision
    return torchvision


def batch_of(
    name: str, batch: int, seed: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Inputs and labels."""
    random = np.random.default_rng(seed)
    shape = (batch, 64, 128) if name == "lstm" else (batch, 3, 224, 224)
    return random.normal(size=shape).astype(np.float32), random.integers(
        0, CLASSES.get(name, 1000), batch
    )


def export(name: str, batch: int, path: Path) -> list[str]:
    """Write the model, its axis of samples open, and return its parameters' names."""
    import torch

    model = build(name)
    x, _ = batch_of(name, batch)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.from_numpy(x),),
            str(path),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    return [parameter for parameter, _ in model.named_parameters()]


Run = Callable[[], Any]
Gradients = Callable[[np.ndarray[Any, Any], np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]


def torch_gradients(name: str, threads: int) -> Gradients:
    """Loss and gradients of a batch and its labels, in PyTorch."""
    import torch

    torch.set_num_threads(threads)
    model = build(name)
    parameters = list(model.parameters())

    def run(x: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        loss = torch.nn.functional.cross_entropy(
            model(torch.from_numpy(x)), torch.from_numpy(labels)
        )
        gradients = torch.autograd.grad(loss, parameters)
        return [loss.detach().numpy(), *(gradient.numpy() for gradient in gradients)]

    return run


def write_backward(path: Path, names: list[str], name: str, backward: Path) -> None:
    """Writes the gradient model of a file."""
    from onnxprune.autodiff import CrossEntropy, gradient
    from onnxprune.graph import load, save

    x, _ = batch_of(name, 2)
    save(gradient(load(path), CrossEntropy("logits"), names, feeds={"x": x}), backward)


def onnx_gradients(backward: Path, threads: int, provider: str) -> Gradients:
    """Loss and gradients of a batch and its labels, in onnxruntime; on the CPU by parts of the batch."""
    from onnxprune.runtime.parts import MeanRunner, parts
    from onnxprune.runtime.sessions import session

    def make(threads: int) -> Any:
        return session(backward, (provider,), threads=threads, frugal=True)

    if provider != "cpu":
        whole = make(threads)
        return lambda x, labels: whole.run(None, {"x": x, "labels": labels})
    runner, size = MeanRunner(make, threads), backward.stat().st_size  # that of the weights, about
    return lambda x, labels: list(
        runner.run({"x": x, "labels": labels}, parts(len(x), size)).values()
    )


def forward(path: Path, name: str, batch: int, threads: int, provider: str) -> Run:
    """A forward pass in onnxruntime."""
    from onnxprune.runtime.sessions import session

    made, (x, _) = session(path, (provider,), threads=threads), batch_of(name, batch)
    return lambda: made.run(None, {"x": x})


def exact_gradients(name: str, batch: int) -> list[np.ndarray[Any, Any]]:
    """The gradients by PyTorch in float64."""
    import torch

    model = build(name).double()
    x, labels = (torch.from_numpy(array) for array in batch_of(name, batch))
    loss = torch.nn.functional.cross_entropy(model(x.double()), labels)
    return [g.numpy() for g in torch.autograd.grad(loss, list(model.parameters()))]


def apart_in_float64(name: str, folder: Path) -> float:
    """How far the gradient graph run in float64, on one sample, is from PyTorch's gradients in float64.

    Where Relus are many, float32 puts some on the other side of their kink, in PyTorch too; this tells whether the
    two compute the same.
    """
    sys.path.append(str(Path(__file__).parents[1] / "tests" / "autodiff"))
    from double import Double

    from onnxprune.autodiff import CrossEntropy, gradient
    from onnxprune.graph import load

    path = folder / "one.onnx"
    names = export(name, 1, path)
    x, labels = batch_of(name, 1)
    model = gradient(load(path), CrossEntropy("logits"), names, feeds={"x": x[:2]})
    outputs = [value.name or "" for value in model.graph.outputs]
    found = Double(model)({"x": x, "labels": labels}, outputs)
    return errors([found[output] for output in outputs[1:]], exact_gradients(name, 1))[1]


def agreement(name: str, folder: Path, options: argparse.Namespace) -> str:
    """How far both sides are apart in float32, batch by batch: relative error of the whole gradient."""
    path = folder / "model.onnx"
    names = export(name, options.batch, path)
    theirs = torch_gradients(name, options.threads)
    backward = folder / "backward.onnx"
    write_backward(path, names, name, backward)
    ours = onnx_gradients(backward, options.threads, options.provider)
    apart = []
    for seed in range(options.agreement):
        x, labels = batch_of(name, options.batch, seed)
        apart.append(errors(ours(x, labels)[1:], theirs(x, labels)[1:])[0])
    agree = np.mean(np.array(apart) <= AGREED)
    return (
        f"{name}: {agree:.0%} of {len(apart)} batches of {options.batch} agree to {AGREED:g};"
        f" least {min(apart):.1e}, median {np.median(apart):.1e}, most {max(apart):.1e}"
    )


def errors(found: Sequence[Any], exact: Sequence[Any]) -> tuple[float, float]:
    """Of the whole gradient, and of the worst weight, relative."""
    off = np.array([np.linalg.norm(a - b) for a, b in zip(found, exact, strict=True)])
    norms = np.array([np.linalg.norm(b) for b in exact])
    whole = float(np.linalg.norm(norms))
    live = norms > ZERO * whole
    return float(np.linalg.norm(off)) / whole, float((off[live] / norms[live]).max())


def worker(task: str, provider: str) -> None:
    """Takes steps as it is told to."""
    side, path, name, batch, threads = json.loads(task)
    given = batch_of(name, batch)
    if side == "torch":
        _torchvision()
    else:
        import onnxprune.runtime.parts
        import onnxprune.runtime.sessions  # noqa: F401

    def make() -> Run:
        if side == "forward":
            return forward(Path(path), name, batch, threads, provider)
        gradients = (
            torch_gradients(name, threads)
            if side == "torch"
            else onnx_gradients(Path(path), threads, provider)
        )
        return lambda: gradients(*given)

    serve(make)


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--exact", action="store_true", help="only compare in float64, one sample")
    parser.add_argument("--agreement", type=int, metavar="N", help="only compare N batches")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.provider)
        return
    if options.exact:
        for name in options.models:
            with tempfile.TemporaryDirectory() as folder:
                print(name, f"{apart_in_float64(name, Path(folder)):.1e}", flush=True)
        return
    if options.agreement:
        for name in options.models:
            with tempfile.TemporaryDirectory() as folder:
                print(agreement(name, Path(folder), options), flush=True)
        return
    print(
        "| model | apart | onnx off | torch off | torch ms | onnx ms | ratio | fastest | to forward |"
        " torch MB | onnx MB | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    ratios = []
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            ratios.append(_row(name, Path(folder), options))
    print(f"median time ratio {np.median(ratios):.2f}")


def _row(name: str, folder: Path, options: argparse.Namespace) -> float:
    path, backward = folder / "model.onnx", folder / "backward.onnx"
    names = export(name, options.batch, path)
    write_backward(path, names, name, backward)
    given = batch_of(name, options.batch)
    exact = exact_gradients(name, options.batch)
    found = [
        onnx_gradients(backward, options.threads, options.provider)(*given)[1:],
        torch_gradients(name, options.threads)(*given)[1:],
    ]
    off, apart = [errors(side, exact) for side in found], errors(*found)

    def start(side: str, at: Path) -> Side:
        task = json.dumps([side, str(at), name, options.batch, options.threads])
        return Side(__file__, ["--provider", options.provider, "--worker", task])

    sides = [start("torch", path), start("onnx", backward), start("forward", path)]
    theirs, ours, once = in_turns(sides, options.rounds)
    ratio, fastest = float(np.median(ours / theirs)), ours.min() / theirs.min()
    cells = [name, *(f"{whole:.0e} / {worst:.0e}" for whole, worst in (apart, *off))]
    cells += [f"{np.median(each) * 1e3:.0f}" for each in (theirs, ours)]
    cells += [f"{ratio:.2f}", f"{fastest:.2f}", f"{np.median(ours / once):.2f}"]
    cells += [f"{side.peak_mb:.0f}" for side in sides[:2]]
    print(
        "| " + " | ".join([*cells, f"{sides[1].peak_mb / sides[0].peak_mb:.2f}"]) + " |", flush=True
    )
    return ratio


if __name__ == "__main__":
    main()
