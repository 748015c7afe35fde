"""Loss and all weight gradients: onnxruntime against PyTorch.

Same weights, same batch, same number of threads, in one process; every model runs in inference mode
(no dropout; the running statistics of BatchNorm are those of the batch, as of a trained network).
Times are medians of runs taken in turns; `fastest` is the ratio of the fastest runs, which other work on
the machine disturbs least. Memory is what a process of its own grows by, at its peak,
from before it loads the model. How far off the gradients are is told for both sides against PyTorch in
float64: the relative error of the gradient as a whole, and of the worst single weight. Needs torch
and torchvision, which the program itself does not.

    python benchmarks/gradients.py [--batch 8] [--threads 2] [--repeat 5] [--provider cpu] [MODEL ...]
    python benchmarks/gradients.py --exact | --agreement 20 [MODEL ...]
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

MODELS = ("resnet18", "mobilenet_v2", "vit_b_16", "lstm")
CLASSES = {"lstm": 10}
ZERO = 1e-9
"""Of the whole gradient: that of a weight below is zero but for rounding, as of the biases of an attention's keys."""
AGREED = 1e-4
SECONDS = 3.0
"""Of turns, at least."""


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


def onnx_gradients(
    path: Path, names: list[str], name: str, batch: int, threads: int, provider: str
) -> tuple[Run, Gradients]:
    """A forward pass, and loss and gradients, in onnxruntime."""
    from onnxprune.autodiff import CrossEntropy, gradient
    from onnxprune.graph import load
    from onnxprune.runtime.sessions import session

    model = load(path)
    x, _ = batch_of(name, batch)
    backward_model = gradient(model, CrossEntropy("logits"), names, feeds={"x": x[:2]})
    forward = session(model, (provider,), threads=threads)
    return (
        lambda: forward.run(None, {"x": x})[0],
        in_onnxruntime(backward_model, threads, provider),
    )


def in_onnxruntime(model: Any, threads: int, provider: str) -> Gradients:
    """A gradient model, on the CPU on parts of the batch."""
    from onnxprune.runtime.parts import MeanRunner, parts
    from onnxprune.runtime.sessions import session

    def make(threads: int) -> Any:
        return session(model, (provider,), threads=threads, frugal=True)

    if provider != "cpu":
        whole = make(threads)
        return lambda x, labels: whole.run(None, {"x": x, "labels": labels})
    runner = MeanRunner(make, threads)
    size = 4 * sum(math.prod(output.shape.numpy()) for output in model.graph.outputs)
    return lambda x, labels: list(
        runner.run({"x": x, "labels": labels}, parts(len(x), size)).values()
    )


def times_ms(runs: Sequence[Run], repeat: int) -> list[np.ndarray[Any, Any]]:
    """Times of each, taken in turns, after one run to warm up; of short runs more."""
    times: list[list[float]] = [[] for _ in runs]
    end, turn = time.perf_counter() + SECONDS, 0
    while turn <= repeat or time.perf_counter() < end:
        for run, found in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            if turn:
                found.append(time.perf_counter() - start)
        turn += 1
    return [np.array(found) * 1e3 for found in times]


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
    _, ours = onnx_gradients(path, names, name, options.batch, options.threads, options.provider)
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


def peak_mb(side: str, path: Path, options: argparse.Namespace, name: str) -> float:
    """Peak growth of a fresh process that runs one side twice."""
    task = json.dumps([side, str(path), name, options.batch, options.threads])
    command = [sys.executable, __file__, "--provider", options.provider, "--memory", task]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _resident_kb() -> int:
    """What the process holds now (its peak so far would include the parent's, before exec)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def _peak_kb() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _memory(task: str, provider: str) -> None:
    side, path, name, batch, threads = json.loads(task)
    if side == "torch":
        _torchvision()
    else:
        import onnxprune.autodiff
        import onnxprune.runtime.parts  # noqa: F401
        from onnxprune.graph import load
    before = _resident_kb()
    run = (
        torch_gradients(name, threads)
        if side == "torch"
        else in_onnxruntime(load(path), threads, provider)
    )
    for _ in range(2):
        run(*batch_of(name, batch))
    print((_peak_kb() - before) / 1024)


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory columns out")
    parser.add_argument("--exact", action="store_true", help="only compare in float64, one sample")
    parser.add_argument("--agreement", type=int, metavar="N", help="only compare N batches")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        _memory(options.memory, options.provider)
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
    from onnxprune.autodiff import CrossEntropy, gradient
    from onnxprune.graph import load, save

    path = folder / "model.onnx"
    names = export(name, options.batch, path)
    given = batch_of(name, options.batch)
    theirs = torch_gradients(name, options.threads)
    forward, ours = onnx_gradients(
        path, names, name, options.batch, options.threads, options.provider
    )
    exact = exact_gradients(name, options.batch)
    found = [side(*given)[1:] for side in (ours, theirs)]
    off, apart = [errors(side, exact) for side in found], errors(*found)
    times = times_ms((lambda: theirs(*given), lambda: ours(*given), forward), options.repeat)
    torch_ms, onnx_ms, forward_ms = (float(np.median(each)) for each in times)
    fastest = times[1].min() / times[0].min()
    memory = ["", "", ""]
    if not options.no_memory:
        x, _ = batch_of(name, options.batch)
        backward = folder / "backward.onnx"
        save(gradient(load(path), CrossEntropy("logits"), names, feeds={"x": x[:2]}), backward)
        mb = [
            peak_mb(side, at, options, name) for side, at in (("torch", path), ("onnx", backward))
        ]
        memory = [f"{mb[0]:.0f}", f"{mb[1]:.0f}", f"{mb[1] / mb[0]:.2f}"]
    cells = [name, *(f"{whole:.0e} / {worst:.0e}" for whole, worst in (apart, *off))]
    cells += [f"{torch_ms:.0f}", f"{onnx_ms:.0f}"]
    cells += [f"{onnx_ms / torch_ms:.2f}", f"{fastest:.2f}", f"{onnx_ms / forward_ms:.2f}", *memory]
    print("| " + " | ".join(cells) + " |", flush=True)
    return onnx_ms / torch_ms


if __name__ == "__main__":
    main()
