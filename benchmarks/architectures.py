"""Structural coverage on torchvision's architectures: what is left of the MACs at sparsity one half, exactly.

    python benchmarks/architectures.py [NAME ...] [--folder DIR] [--inexact] [--peer]

Exports each network with random weights by both of PyTorch's exporters, prunes the file with `onnxprune` (layer
scope, no rounding) and prints the share of MACs left; a row without a number was refused. `--peer` prunes the same
networks with Torch-Pruning (Fang et al., CVPR 2023) inside PyTorch, magnitude, the classifier left whole, by its own
MACs counter.

Needs torch, torchvision and, for the peer, torch-pruning: development aids, no part of onnxprune.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import warnings
from pathlib import Path

import torch

import onnxprune
from onnxprune.errors import OnnxPruneError

_library = torch.library.Library(
    "torchvision", "DEF"
)  # CPU builds lack these; none of the networks uses them
for _op in ("nms", "qnms"):
    _library.define(f"{_op}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import torchvision  # noqa: E402

NAMES = """
    alexnet vgg11_bn resnet18 resnet50 resnext50_32x4d mobilenet_v2 mobilenet_v3_large efficientnet_b0 mnasnet1_0
    regnet_y_400mf squeezenet1_1 densenet121 googlenet inception_v3 deeplabv3_resnet50 vit_b_16 convnext_tiny
    shufflenet_v2_x1_0 swin_t
""".split()  # noqa: SIM905


class Segmentation(torch.nn.Module):
    """The one output of a segmentation network that counts."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores by pixel."""
        return self.inner(x)["out"]


def network(name: str) -> torch.nn.Module:
    """The network in inference mode, with normalisation statistics that are not trivial."""
    torch.manual_seed(0)
    models = torchvision.models
    if name.startswith("deeplab"):
        net = Segmentation(getattr(models.segmentation, name)(weights=None, weights_backbone=None))
    else:
        extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        net = getattr(models, name)(weights=None, **extra)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_(0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def example(name: str) -> torch.Tensor:
    """One random image."""
    side = 299 if name == "inception_v3" else 224
    return torch.randn(1, 3, side, side)


def export(name: str, path: Path, dynamo: bool) -> None:
    """Writes the network as ONNX, as users do."""
    names = {"input_names": ["x"], "output_names": ["y"]}
    if dynamo:
        torch.onnx.export(
            network(name), (example(name),), path, dynamo=True, external_data=False, **names
        )
    else:
        torch.onnx.export(
            network(name), (example(name),), path, dynamo=False, opset_version=17, **names
        )


def ours(path: Path, inexact: bool) -> float | None:
    """MACs left by onnxprune; every cut has been proven on the way."""
    try:
        report = onnxprune.prune(
            path,
            path.with_suffix(".pruned.onnx"),
            sparsity=0.5,
            scope="layer",
            round_to=1,
            allow_inexact=inexact,
            check_drift=False,
            check_latency=False,
        )
    except OnnxPruneError as error:
        print(f"  {error}")
        return None
    assert report.before is not None
    assert report.after is not None
    return (report.after.macs or 0) / (report.before.macs or 1)


def peer(name: str) -> float:
    """MACs left by Torch-Pruning."""
    import torch_pruning as tp

    net, x = network(name), example(name)
    before, _ = tp.utils.count_ops_and_params(net, x)
    last = [m for m in net.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)][-1]
    heads = {m: m.num_heads for m in net.modules() if isinstance(m, torch.nn.MultiheadAttention)}
    pruner = tp.pruner.MetaPruner(
        net,
        x,
        importance=tp.importance.MagnitudeImportance(),
        pruning_ratio=0.5,
        ignored_layers=[last],
        num_heads=heads,
    )
    pruner.step()
    net(x)
    after, _ = tp.utils.count_ops_and_params(net, x)
    return float(after / before)


def main() -> None:
    """Prints one line of JSON a network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--inexact", action="store_true", help="also what normalisations run over")
    parser.add_argument("--peer", action="store_true", help="Torch-Pruning too")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for name in arguments.names:
            row: dict[str, object] = {"network": name}
            for dynamo in (False, True):
                path = Path(folder) / "network.onnx"
                export(name, path, dynamo)
                share = ours(path, arguments.inexact)
                row["dynamo" if dynamo else "torchscript"] = share and round(share, 4)
            if arguments.peer:
                try:
                    row["torch-pruning"] = round(peer(name), 4)
                except Exception as error:  # whatever another program does not manage is its result
                    row["torch-pruning"] = f"{type(error).__name__}: {error}"[:80]
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
