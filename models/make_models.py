"""Makes the models of this folder and writes them, with their data, beside this script.

PyTorch builds and exports them with random weights, `onnxprune.finetune` trains the files. A development script: it
needs torch and scikit-learn, which the package never imports. The images are scikit-learn's digits (1797 handwritten
digits of 8x8 pixels, from the UCI repository). Fixed splits and seeds; run it as

    python models/make_models.py [resnet] [vit] [lstm]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

import onnxprune

HERE = Path(__file__).resolve().parent
INPUT, OUTPUT = "image", "logits"
CLASSES, TEST, CALIBRATION = 10, 450, 200


class Residual(nn.Module):
    """Two 3x3 convolutions with BatchNorm, and a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


class ResNet(nn.Module):
    """A stem and four residual blocks, 16, 32, 32 and 64 channels wide."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16))
        widths = [(16, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]
        self.blocks = nn.Sequential(*(Residual(*w) for w in widths))
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.stem(x)))
        return self.head(x.mean((2, 3)))


class Block(nn.Module):
    """A pre-norm transformer block with fused query, key and value, as in ViT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        _, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(-1, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """Patches of 2x2, a class token, three blocks of width 48 with four heads."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, 2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class RowLSTM(nn.Module):
    """Reads the image row by row, in both directions, with two LSTM layers of 32 hidden units."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, hidden, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.lstm(x.squeeze(1))
        return self.head(y.mean(1))


TRAINING = {
    "optimizer": "adamw",
    "weight_decay": 0.02,
    "schedule": "one-cycle",
    "clip_norm": None,
    "smoothing": 0.05,
    "batch_size": 64,
    "held_aside": 0.0,
    "threads": 1,
}
MODELS = {
    "resnet": (ResNet, {"epochs": 60, "lr": 3e-3, "augment": "crop,zoom", "seed": 4}),
    "vit": (ViT, {"epochs": 120, "lr": 3e-3, "augment": "zoom", "seed": 1}),
    "lstm": (RowLSTM, {"epochs": 150, "lr": 1e-2, "augment": "zoom", "seed": 4}),
}


def split() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images [n, 1, 8, 8] as float32 in 0..1 and labels; `calib` is a part of `train`."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    rest = slice(TEST, None)
    return {
        "test": (images[:TEST], labels[:TEST]),
        "train": (images[rest], labels[rest]),
        "calib": (images[rest][:CALIBRATION], labels[rest][:CALIBRATION]),
    }


def export(name: str, model: nn.Module, path: Path) -> None:
    """With the weights that it has, batch dynamic: the ViT by the dynamo exporter, the others by TorchScript's."""
    example = torch.zeros(2, 1, 8, 8)
    names = {"input_names": [INPUT], "output_names": [OUTPUT]}
    if name == "vit":
        shapes = {"x": {0: torch.export.Dim("batch")}}
        program = torch.onnx.export(model, (example,), dynamo=True, dynamic_shapes=shapes, **names)
        for node in program.model.graph:  # where in the exporter's machine the line stood
            node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
        program.save(path, external_data=False)
        return
    torch.onnx.export(
        model,
        (example,),
        str(path),
        dynamo=False,
        opset_version=17,
        dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,  # keeps BatchNormalization out of the convolutions
        do_constant_folding=name == "lstm",  # the LSTM's gates are reordered by folding
        **names,
    )


def accuracy(path: Path, images: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 of the exported file in onnxruntime."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {INPUT: images})
    return float((logits.argmax(1) == labels).mean())


def main() -> None:
    """Writes the data and the models named on the command line (all of them by default)."""
    torch.set_num_threads(1)
    data = split()
    for part, file in (("test", "digits.npz"), ("calib", "digits_calib.npz")):
        images, labels = data[part]
        np.savez_compressed(HERE / file, **{INPUT: images}, labels=labels)
    with tempfile.TemporaryDirectory() as folder:
        images, labels = data["train"]
        samples, untrained = Path(folder) / "train.npz", Path(folder) / "untrained.onnx"
        np.savez(samples, **{INPUT: images}, labels=labels)
        for name in sys.argv[1:] or MODELS:
            build, training = MODELS[name]
            torch.manual_seed(0)
            model = build().eval()
            for tensor in (*model.parameters(), *model.buffers()):
                if tensor.is_floating_point() and tensor.unique().numel() == 1:
                    # Exporters store equal ones once, and they would stay equal.
                    tensor.data += 1e-6 * torch.randn(tensor.shape)
            export(name, model, untrained)
            path = HERE / f"digits_{name}.onnx"
            onnxprune.finetune(untrained, path, samples, **TRAINING, **training)
            size = sum(p.numel() for p in model.parameters())
            print(f"{path.name}: {size} parameters, {path.stat().st_size} bytes, ", end="")
            print(f"top-1 {accuracy(path, *data['test']):.4f} of {TEST}", flush=True)


if __name__ == "__main__":
    main()
