"""A training step in onnxruntime against PyTorch: samples a second, and memory.

Forward, cross-entropy, backward and update (SGD with momentum and weight decay) of the same architecture at the same
batch with the same threads; BatchNormalization live where the network has any. Each side is a process of its own; they
take turns, and the ratio is the median over the turns. Memory is what the process grows by at its peak from before it
builds the model, building included. Needs torch and torchvision, which the program itself does not.

    python benchmarks/training.py [--threads 2] [--rounds 7] [--provider cpu] [MODEL ...]
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from gradients import _torchvision
from sides import Side, in_turns, serve

BATCH = {"resnet18": 16, "mobilenet_v2": 16, "resnet20": 128, "vgg": 128, "vit": 128}
RATE = 1e-4


def build(name: str) -> Any:
    """A network in training mode; those for 32 pixels without BatchNormalization, as files that folded it have it."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    torch.manual_seed(0)
    if name in ("resnet18", "mobilenet_v2"):
        model = _torchvision().models.get_model(name, weights=None).train()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
            if isinstance(part, nn.BatchNorm2d):  # equal tensors would be exported as one
                for tensor in (part.weight.data, part.running_var):
                    tensor.uniform_(0.5, 1.5)
                for tensor in (part.bias.data, part.running_mean):
                    tensor.normal_(std=0.1)
        return model

    def conv(inputs: int, outputs: int, stride: int = 1) -> Any:
        return nn.Conv2d(inputs, outputs, 3, stride, 1)

    class Residual(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = conv(inputs, outputs, stride), conv(outputs, outputs)
            same = inputs == outputs
            self.short = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

        def forward(self, x: Any) -> Any:
            return f.relu(self.second(f.relu(self.first(x))) + self.short(x))

    class Block(nn.Module):
        def __init__(self, width: int, heads: int) -> None:
            super().__init__()
            self.heads = heads
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x: Any) -> Any:
            n, t, w = x.shape
            parts = self.qkv(self.norms[0](x)).reshape(n, t, 3, self.heads, -1).unbind(2)
            seen = f.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
            x = x + self.out(seen.transpose(1, 2).reshape(n, t, w))
            return x + self.mlp(self.norms[1](x))

    class Vit(nn.Module):
        def __init__(self, width: int = 96) -> None:
            super().__init__()
            self.patches = nn.Conv2d(3, width, 4, 4)
            self.token = nn.Parameter(torch.zeros(1, 1, width))
            self.places = nn.Parameter(torch.randn(1, 65, width) * 0.02)
            self.blocks = nn.Sequential(*(Block(width, 3) for _ in range(4)))
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.places
            return self.head(self.norm(self.blocks(x))[:, 0])

    if name == "vit":
        return Vit()
    if name == "resnet20":
        widths = [16] * 4 + [32] * 3 + [64] * 3
        parts = [Residual(a, b, 1 if a == b else 2) for a, b in itertools.pairwise(widths)]
        pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
        return nn.Sequential(conv(3, 16), nn.ReLU(), *parts, pool)
    layers: list[Any] = []
    for a, b in ((3, 32), (32, 64), (64, 128), (128, 256)):
        layers += [conv(a, b), nn.ReLU(), conv(b, b), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if b < 256 else []
    head = [nn.Flatten(), nn.Linear(4096, 256), nn.ReLU(), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *head)


def batch_of(name: str) -> tuple[Any, Any]:
    """Images and labels."""
    random = np.random.default_rng(0)
    size, classes = (224, 1000) if name in ("resnet18", "mobilenet_v2") else (32, 10)
    images = random.normal(size=(BATCH[name], 3, size, size)).astype(np.float32)
    return images, random.integers(0, classes, BATCH[name])


def export(name: str, path: Path) -> None:
    """Writes the network with an open axis of samples."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            build(name).eval(),
            (torch.from_numpy(batch_of(name)[0][:2]),),
            str(path),
            input_names=["x"],
            output_names=["logits"],
            dynamic_axes={"x": {0: "N"}, "logits": {0: "N"}},
            opset_version=17,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )


def torch_step(name: str, threads: int, provider: str) -> Callable[[], float]:
    """A step of PyTorch."""
    import torch

    torch.set_num_threads(threads)
    device = "cuda" if provider == "cuda" else "cpu"
    model = build(name).to(device)
    x, labels = (torch.from_numpy(array).to(device) for array in batch_of(name))
    optimizer = torch.optim.SGD(model.parameters(), RATE, 0.9, weight_decay=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def onnx_step(name: str, path: Path, threads: int, provider: str) -> Callable[[], float]:
    """A step of the program."""
    from onnxprune.autodiff import CrossEntropy
    from onnxprune.graph import load
    from onnxprune.train import SGD, Runner, live, trainable, training_step

    model = load(path)
    x, labels = batch_of(name)
    mode = live(model, feeds={"x": x[:2]})
    step = training_step(
        mode.model,
        CrossEntropy("logits", labels="labels"),
        SGD(0.9, weight_decay=1e-4),
        trainable(model),
        feeds={"x": x[:2]},
        running=mode.running,
    )
    runner = Runner(step, (provider,), threads=threads)
    return lambda: runner.run({"x": x, "labels": labels}, RATE)


def worker(side: str, name: str, path: Path, threads: int, provider: str) -> None:
    """Takes steps as it is told to."""
    if side == "torch":
        _torchvision()
        serve(lambda: torch_step(name, threads, provider))
    else:
        import onnxprune.train  # noqa: F401

        serve(lambda: onnx_step(name, path, threads, provider))


def measure(name: str, folder: Path, options: argparse.Namespace) -> tuple[list[float], float]:
    """Cells of the table, and the ratio of the speeds."""
    path = folder / f"{name}.onnx"
    export(name, path)
    common = ["--path", str(path), "--threads", str(options.threads), name]
    common += ["--provider", options.provider]
    sides = [Side(__file__, ["--worker", side, *common]) for side in ("torch", "onnx")]
    times = in_turns(sides, options.rounds)
    ratio = float(np.median(times[0] / times[1]))
    speeds = [BATCH[name] / float(np.median(each)) for each in times]
    peaks = [side.peak_mb for side in sides]
    return [*speeds, ratio, *peaks, peaks[1] / peaks[0]], ratio


def main() -> None:
    """Prints one row a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", default=list(BATCH))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        name = options.models[0]
        worker(options.worker, name, options.path, options.threads, options.provider)
        return
    print("| network | batch | torch /s | onnx /s | ratio | torch MB | onnx MB | ratio |")
    print("|---|---|---|---|---|---|---|---|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            cells, ratio = measure(name, Path(folder), options)
            ratios.append(ratio)
            words = [f"{cells[0]:.1f}", f"{cells[1]:.1f}", f"{cells[2]:.2f}"]
            words += [f"{cells[3]:.0f}", f"{cells[4]:.0f}", f"{cells[5]:.2f}"]
            print(f"| {name} | {BATCH[name]} | " + " | ".join(words) + " |", flush=True)
    print(f"median ratio of speed {np.median(ratios):.2f}")


if __name__ == "__main__":
    main()
