"""Time and memory of pruning a model with gigabytes of external data.

    python benchmarks/big_model.py [--gb 4] [--samples 0] [--folder DIR] [--keep] [-- OPTIONS OF ONNXPRUNE]

Makes a chain of linear layers of 64 MiB each with external data, prunes it with `python -m onnxprune`
in a process of its own, and holds the time against that of copying the model's files. The two are
measured in turn, so both find the files in the page cache, or both do not. With `--samples N` it is pruned on N
samples: calibrated, scored and re-fitted.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

WIDTH = 4096  # 64 MiB of float32 a layer


def make_chain(path: Path, gigabytes: float) -> None:
    """Writes a chain of `x @ w + b` and Relu, its weights in `<name>.data`."""
    layers = max(2, round(gigabytes * 2**30 / (4 * WIDTH**2)))
    block = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), np.float32)
    block *= np.sqrt(2 / WIDTH)
    nodes, tensors = [], []
    data = path.with_name(path.name + ".data")
    with open(data, "wb") as file:
        for layer in range(layers):
            source = "x" if layer == 0 else f"r{layer - 1}"
            last = layer == layers - 1
            target = "y" if last else f"h{layer}"
            nodes.append(helper.make_node("Gemm", [source, f"w{layer}", f"b{layer}"], [target]))
            if not last:
                nodes.append(helper.make_node("Relu", [target], [f"r{layer}"]))
            weight = np.roll(block, 37 * layer, axis=1)
            for name, array in ((f"w{layer}", weight), (f"b{layer}", np.zeros(WIDTH, np.float32))):
                tensors.append(_reference(name, array, data.name, file.tell()))
                array.tofile(file)
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        tensors,
    )
    imports = [helper.make_opsetid("", 17)]
    path.write_bytes(
        helper.make_model(graph, ir_version=9, opset_imports=imports).SerializeToString()
    )


def make_samples(count: int) -> np.ndarray:
    """Inputs of the chain, correlated as those of a trained network are."""
    random = np.random.default_rng(1)
    mixing = random.standard_normal((WIDTH // 16, WIDTH), np.float32)
    mixing /= np.float32(np.sqrt(WIDTH // 16))
    noise = random.standard_normal((count, WIDTH), np.float32)
    return random.standard_normal((count, WIDTH // 16), np.float32) @ mixing + 0.1 * noise


def _reference(name: str, array: np.ndarray, location: str, offset: int) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def copy_seconds(source: Path, folder: Path) -> float:
    """Time of copying the model and its data."""
    folder.mkdir()
    start = time.perf_counter()
    for path in (source, source.with_name(source.name + ".data")):
        shutil.copyfile(path, folder / path.name)
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    return seconds


def prune_cost(source: Path, target: Path, options: list[str]) -> tuple[float, float]:
    """Seconds and peak resident GiB of one run of the program."""
    command = [sys.executable, "-m", "onnxprune", str(source), str(target), *options]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"onnxprune failed with exit code {process.returncode}")
    return seconds, usage.ru_maxrss / 2**20  # kilobytes, on Linux


def main() -> None:
    """Runs the benchmark and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gb", type=float, default=4.0, help="size of the weights, GiB")
    parser.add_argument("--samples", type=int, default=0, help="samples to calibrate on")
    parser.add_argument("--folder", type=Path, help="where to work; three times the size is needed")
    parser.add_argument("--keep", action="store_true", help="leave the files there")
    arguments, options = parser.parse_known_args()
    options = [option for option in options if option != "--"]
    folder = Path(tempfile.mkdtemp(prefix="onnxprune-big-", dir=arguments.folder))
    try:
        source = folder / "big.onnx"
        make_chain(source, arguments.gb)
        if arguments.samples:
            data = folder / "samples.npy"
            np.save(data, make_samples(arguments.samples))
            options += ["--data", str(data)]
        before = copy_seconds(source, folder / "copy")
        seconds, peak = prune_cost(source, folder / "pruned.onnx", options)
        after = copy_seconds(source, folder / "copy")
        copying = (before + after) / 2
        size = (folder / "pruned.onnx.data").stat().st_size / 2**30
        print(
            json.dumps(
                {
                    "gib": arguments.gb,
                    "samples": arguments.samples,
                    "gib_pruned": round(size, 2),
                    "seconds": round(seconds, 1),
                    "seconds_copying": [round(before, 1), round(after, 1)],
                    "ratio": round(seconds / copying, 2),
                    "peak_gib": round(peak, 2),
                }
            )
        )
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
