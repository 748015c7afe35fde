"""Accuracy kept against Torch-Pruning (Fang et al., CVPR 2023) in PyTorch: same network, same samples, equal MACs.

    python benchmarks/torch_pruning_accuracy.py [--model M.onnx --calibration C.npz --test T.npz] [--macs 0.7 0.5 0.3]
        [--train T.npz --epochs 8 --rates 0.05 0.02 0.005]

No fine-tuning on either side, unless `--train T.npz --epochs N` says on what labelled samples and for how long: then
the best of Torch-Pruning's is trained by PyTorch (SGD with Nesterov's momentum, at each of `--rates`, of which the
best counts), onnxprune's by `--recover finetune`, and seconds are those of a whole run, of one rate.

The ONNX file is rebuilt in PyTorch, layer by layer, and both must give the same outputs before anything is pruned.
Torch-Pruning is run with each of its criteria, layer by layer and globally, at the largest pruning ratio search finds
that leaves no more than the MACs asked for; the best accuracy of all of them counts, as the test set has it. Gradients
for its Taylor criterion are of the network's own answers on the calibration samples, which have no labels. onnxprune is
run once, with its defaults.

The test file has the input and `labels`; by default it is the digits network and data of `models/`. Needs torch and
torch-pruning: development aids, no part of onnxprune.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import torch
import torch_pruning as tp
from onnx import numpy_helper
from torch import nn

import onnxprune

MODELS = Path(__file__).resolve().parent.parent / "models"
CRITERIA: dict[str, Callable[[], tp.importance.Importance]] = {
    "L1": lambda: tp.importance.MagnitudeImportance(p=1),
    "L2": lambda: tp.importance.MagnitudeImportance(p=2),
    "LAMP": lambda: tp.importance.LAMPImportance(),
    "FPGM": lambda: tp.importance.FPGMImportance(),
    "Taylor": lambda: tp.importance.TaylorImportance(),
}
HALVINGS = 7
RATES = (0.05, 0.02, 0.005)
BATCH = 128


class Rebuilt(nn.Module):
    """An ONNX network of convolutions, linear layers, poolings and sums as PyTorch modules."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        graph = onnx.load(path).graph
        weights = {w.name: torch.tensor(numpy_helper.to_array(w)) for w in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                weights[node.output[0]] = torch.tensor(numpy_helper.to_array(node.attribute[0].t))
            elif node.op_type == "Identity" and node.input[0] in weights:
                weights[node.output[0]] = weights[node.input[0]]
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.nodes = [node for node in graph.node if node.output[0] not in weights]
        self.layers = nn.ModuleDict()
        for k, node in enumerate(self.nodes):
            layer = _layer(node, weights)
            if layer is not None:
                self.layers[str(k)] = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first output."""
        values = {self.input: x}
        for k, node in enumerate(self.nodes):
            arguments = [values[name] for name in node.input if name in values]
            if str(k) in self.layers:
                values[node.output[0]] = self.layers[str(k)](*arguments)
            else:
                values[node.output[0]] = _function(node.op_type)(*arguments)
        return values[self.output]


def _attributes(node: onnx.NodeProto) -> dict[str, object]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _layer(node: onnx.NodeProto, weights: dict[str, torch.Tensor]) -> nn.Module | None:
    """The module of a node that has weights or a window."""
    a = _attributes(node)
    held = [weights[name] for name in node.input if name in weights]
    if node.op_type == "Conv":
        w = held[0]
        pads, group = a.get("pads", [0] * 4), a.get("group", 1)
        layer: nn.Module = nn.Conv2d(
            w.shape[1] * group, w.shape[0], w.shape[2:], a.get("strides", 1), pads[:2],
            a.get("dilations", 1), group, len(held) > 1,
        )  # fmt: skip
    elif node.op_type in ("Gemm", "MatMul"):
        w = held[0] if a.get("transB") else held[0].T
        layer = nn.Linear(w.shape[1], w.shape[0], len(held) > 1)
    elif node.op_type == "MaxPool":
        return nn.MaxPool2d(a["kernel_shape"], a.get("strides"), a.get("pads", [0, 0])[:2])
    elif node.op_type == "BatchNormalization":
        layer = nn.BatchNorm2d(len(held[0]), eps=a.get("epsilon", 1e-5))
        layer.running_mean.data, layer.running_var.data, w = held[2], held[3], held[0]
    else:
        return None
    layer.weight.data = w.clone()
    if len(held) > 1:
        layer.bias.data = held[1].clone()
    return layer


def _function(op: str) -> Callable[..., torch.Tensor]:
    """What a node without weights does."""
    functions: dict[str, Callable[..., torch.Tensor]] = {
        "Relu": torch.relu,
        "Add": torch.add,
        "Identity": lambda x: x,
        "Flatten": lambda x: x.flatten(1),
        "Reshape": lambda x: x.flatten(1),
        "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
        "ReduceMean": lambda x: x.mean((2, 3)),
    }
    return functions[op]


def top1(answers: np.ndarray, labels: np.ndarray) -> float:
    """Percent of right answers."""
    return 100 * float((answers.argmax(1) == labels).mean())


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    """Of an ONNX file."""
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.concatenate(
        [session.run(None, {name: x[k : k + 50]})[0] for k in range(0, len(x), 50)]
    )


@torch.no_grad()
def evaluated(net: nn.Module, x: np.ndarray) -> np.ndarray:
    """Of a PyTorch network."""
    return np.concatenate(
        [net(torch.tensor(x[k : k + 200])).numpy() for k in range(0, len(x), 200)]
    )


def pruned(
    net: nn.Module, criterion: str, everywhere: bool, ratio: float, x: torch.Tensor
) -> nn.Module:
    """The network without so many of its channels, by Torch-Pruning."""
    made = copy.deepcopy(net)
    last = list(made.layers.values())[-1]
    pruner = tp.pruner.MetaPruner(
        made, x[:1], importance=CRITERIA[criterion](), global_pruning=everywhere,
        pruning_ratio=ratio, max_pruning_ratio=0.95, ignored_layers=[last],
    )  # fmt: skip
    if criterion == "Taylor":
        answers = made(x)
        nn.functional.cross_entropy(answers, answers.argmax(1).detach()).backward()
    pruner.step()
    return made


def peer(
    net: nn.Module, target: float, x: torch.Tensor, test: np.ndarray, labels: np.ndarray
) -> tuple[float, str, nn.Module]:
    """The best accuracy that any of its criteria keeps, which, and the network."""
    whole = tp.utils.count_ops_and_params(net, x[:1])[0]
    best: tuple[float, str, nn.Module] = (0.0, "none", net)
    for criterion in CRITERIA:
        for everywhere in (False, True):
            low, high, found = 0.0, 0.95, None
            for _ in range(HALVINGS):
                ratio = (low + high) / 2
                made = pruned(net, criterion, everywhere, ratio, x)
                if tp.utils.count_ops_and_params(made, x[:1])[0] <= target * whole:
                    high, found = ratio, made
                else:
                    low = ratio
            if found is not None:
                name = f"{criterion}, {'global' if everywhere else 'layer'}"
                kept = top1(evaluated(found.eval(), test), labels)
                best = max(best, (kept, name, found), key=lambda each: each[0])
    return best


def finetuned(
    net: nn.Module, x: torch.Tensor, labels: torch.Tensor, rate: float, epochs: int
) -> nn.Module:
    """Trained on labels, images flipped and shifted by up to an eighth, the rate falling along a cosine."""
    made = copy.deepcopy(net).train()
    optimizer = torch.optim.SGD(
        made.parameters(), rate, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = epochs * (len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    reach = x.shape[-1] // 8
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for start in range(0, len(x) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            batch = nn.functional.pad(x[rows], [reach] * 4, mode="reflect")
            top, left = torch.randint(0, 2 * reach + 1, (2,)).tolist()
            batch = batch[..., top : top + x.shape[-2], left : left + x.shape[-1]]
            batch = batch.flip(3) if torch.rand(1) < 0.5 else batch
            optimizer.zero_grad()
            nn.functional.cross_entropy(made(batch), labels[rows]).backward()
            nn.utils.clip_grad_norm_(made.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return made.eval()


def main() -> None:
    """Prints a row of the table for each share of the MACs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, default=MODELS / "digits_resnet.onnx")
    parser.add_argument("--calibration", type=Path, default=MODELS / "digits_calib.npz")
    parser.add_argument("--test", type=Path, default=MODELS / "digits.npz")
    parser.add_argument("--macs", type=float, nargs="+", default=[0.7, 0.5, 0.3, 0.15])
    parser.add_argument("--train", type=Path, help="labelled samples to fine-tune on")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    given = parser.parse_args()
    net = Rebuilt(given.model).eval()
    test, calibration = np.load(given.test), np.load(given.calibration)
    x, labels = test[net.input], test["labels"]
    before = outputs(given.model, x)
    np.testing.assert_allclose(evaluated(net, x), before, atol=1e-3)
    today, versions = datetime.now(UTC).date(), (ort.__version__, torch.__version__, tp.__version__)
    print(
        f"{given.model.stem}: {top1(before, labels):.1f} ({today}; onnxprune {onnxprune.__version__},"
        " onnxruntime {}, torch {}, torch-pruning {})".format(*versions)
    )
    print(
        "| MACs left | onnxprune | Torch-Pruning, best | which | points ahead | seconds | theirs |"
    )
    print("|---|---|---|---|---|---|---|")
    for target in given.macs:
        began = time.perf_counter()
        kept, which, found = peer(net, target, torch.tensor(calibration[net.input]), x, labels)
        searched = time.perf_counter() - began
        with tempfile.TemporaryDirectory() as folder:
            out, data = Path(folder) / "out.onnx", Path(folder) / "data.npz"
            np.savez(data, **{net.input: calibration[net.input]})
            began = time.perf_counter()
            training = {"recover": "finetune", "train": {"epochs": given.epochs}}
            onnxprune.prune(
                given.model, out, data=given.train or data, target=f"macs={target}",
                check_latency=False, **(training if given.train else {}),
            )  # fmt: skip
            seconds = time.perf_counter() - began
            mine = top1(outputs(out, x), labels)
        trained = _trained(found, given, net.input, x, labels) if given.train else [(kept, 0.0)]
        theirs, spent = max(trained)
        print(
            f"| {target:g} | {mine:.1f} | {theirs:.1f} | {which} | {mine - theirs:+.1f} | {seconds:.0f} |"
            f" {searched + spent:.0f} |",
            flush=True,
        )


def _trained(
    found: nn.Module, given: argparse.Namespace, name: str, x: np.ndarray, labels: np.ndarray
) -> list[tuple[float, float]]:
    """Accuracy and seconds by rate."""
    data, results = np.load(given.train), []
    for rate in given.rates:
        began = time.perf_counter()
        made = finetuned(
            found, torch.tensor(data[name]), torch.tensor(data["labels"]), rate, given.epochs
        )
        results.append((top1(evaluated(made, x), labels), time.perf_counter() - began))
    return results


if __name__ == "__main__":
    main()
