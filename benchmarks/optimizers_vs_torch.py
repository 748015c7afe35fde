"""Training steps in onnxruntime against PyTorch: the weights after them, and the time they take.

1. Optimizers: `torch.optim` itself, and torch's clipping, are given the gradients that the step graph
   found; the largest difference of any weight after all steps, relative to the largest weight of its tensor.
2. Networks: the same model built in PyTorch, its weights read from the ONNX file, trained from the same
   batches by autograd and `torch.optim`; the relative difference of each tensor, |a - b| / |b|. Beside it
   that of PyTorch in float32 from PyTorch in float64: Adam divides a gradient by its own size, so where
   there is nothing but rounding (the bias of an attention's keys, which softmax ignores, has a gradient of
   exactly zero) any two ways to round take steps of their own. With an epsilon above the noise they do not.
3. Time: samples a second of both, in turns, in this process; the median of several rounds.

Needs torch, which the program itself does not.

    python benchmarks/optimizers_vs_torch.py [--steps 20] [--batch 64] [--threads 2] [--rounds 5]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "models")]

from make_models import ResNet, ViT  # type: ignore[import-not-found]  # noqa: E402

from onnxprune.graph import load, weights  # noqa: E402
from onnxprune.runtime.data import read_data  # noqa: E402
from onnxprune.runtime.sessions import session  # noqa: E402
from onnxprune.train import (  # noqa: E402
    SGD,
    AdamW,
    Runner,
    Source,
    StepOptions,
    live,
    objective,
    trainable,
    training_step,
    untie,
)

MODELS: dict[str, Any] = {"resnet": ResNet, "vit": ViT}
CASES: dict[str, tuple[Any, StepOptions, Callable[[Any], Any]]] = {
    "SGD, momentum 0.9, decay, norm clipped": (
        SGD(0.9, weight_decay=1e-2),
        StepOptions(clip_norm=0.1),
        lambda p: torch.optim.SGD(p, 1.0, 0.9, weight_decay=1e-2),
    ),
    "SGD, Nesterov, decay, values clipped": (
        SGD(0.9, nesterov=True, weight_decay=1e-2),
        StepOptions(clip_value=1e-3),
        lambda p: torch.optim.SGD(p, 1.0, 0.9, weight_decay=1e-2, nesterov=True),
    ),
    "AdamW, decay, norm clipped": (
        AdamW(weight_decay=0.1),
        StepOptions(clip_norm=0.1),
        lambda p: torch.optim.AdamW(p, 1.0, weight_decay=0.1),
    ),
    "AdamW, epsilon 1e-6, decay, norm clipped": (
        AdamW(epsilon=1e-6, weight_decay=0.1),
        StepOptions(clip_norm=0.1),
        lambda p: torch.optim.AdamW(p, 1.0, eps=1e-6, weight_decay=0.1),
    ),
}
RATES = {SGD: 0.02, AdamW: 1e-3}


def names_in_torch(model: Any) -> dict[str, tuple[str, bool]]:
    """Parameter name to initializer and whether that is its transpose: MatMuls are found by the bias after them."""
    own = {weight.name for weight in weights(model)}
    found = {name: (name, False) for name in own}
    for node in model.graph:
        if node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].name in own:
            for user, _ in node.outputs[0].uses():
                for value in user.inputs:
                    if value is not None and (value.name or "").endswith(".bias"):
                        stem = (value.name or "").removesuffix("bias")
                        found[f"{stem}weight"] = (node.inputs[1].name, True)
    return found


def in_torch(name: str, model: Any) -> tuple[Any, dict[str, tuple[str, bool]]]:
    """The network in PyTorch with the file's weights, and where each of them is in the file."""
    arrays = {weight.name: weight.array() for weight in weights(model)}
    where = names_in_torch(model)
    network = MODELS[name]()
    state = {}
    for key, tensor in network.state_dict().items():
        source, transposed = where.get(key, (key, False))
        if source in arrays:
            state[key] = torch.tensor(arrays[source].T if transposed else arrays[source])
        else:
            state[key] = tensor
    network.load_state_dict(state)
    return network, where


def clip(options: StepOptions, parameters: Any) -> None:
    """Torch's own clipping."""
    if options.clip_value is not None:
        torch.nn.utils.clip_grad_value_(parameters, options.clip_value)
    if options.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(parameters, options.clip_norm)


def given_gradients(step: Any, batches: list[Any], options: Any, make: Any, rate: float) -> float:
    """Part 1."""
    values = {v.name: v for node in step.model.graph for v in node.outputs}
    grads = [f"{name}.grad" for name in step.weights]
    step.model.graph.outputs.extend(values[name] for name in grads)
    made = session(step.model, threads=1)
    known = {value.name for value in made.get_inputs()}
    state = dict(step.start)
    parameters = [torch.nn.Parameter(torch.tensor(state[name])) for name in step.weights]
    optimizer = make(parameters)
    for k, batch in enumerate(batches):
        feed = {**batch, **state, step.rate: np.float32(rate), step.step: np.int64(k + 1)}
        feed = {n: np.asarray(v) for n, v in feed.items() if n in known}
        results = made.run([*step.carried.values(), *grads], feed)
        state = dict(zip(step.carried, results, strict=False))
        for parameter, found in zip(parameters, results[len(step.carried) :], strict=True):
            parameter.grad = torch.tensor(found)
        clip(options, parameters)
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    return max(
        float(np.abs(state[n] - p.detach().numpy()).max() / np.abs(p.detach().numpy()).max())
        for n, p in zip(step.weights, parameters, strict=True)
    )


def torch_step(network: Any, optimizer: Any, options: Any, batch: Any) -> float:
    """Forward, backward and update in PyTorch, in the precision of the network."""
    x, labels = torch.from_numpy(batch["image"]), torch.from_numpy(batch["train/labels"])
    x = x.to(next(network.parameters()).dtype)
    optimizer.zero_grad()
    loss = torch.nn.functional.cross_entropy(network(x), labels)
    loss.backward()
    clip(options, list(network.parameters()))
    optimizer.step()
    return float(loss.detach())


def separately(
    name: str,
    model: Any,
    step: Any,
    batches: Any,
    case: Any,
    rate: float,
    *,
    training: bool = False,
) -> Any:
    """Part 2: the relative differences of all tensors, the largest first, and the largest of PyTorch from itself."""
    _, options, make = case
    (network, where), (exact, _) = in_torch(name, model), in_torch(name, model)
    runner = Runner(step, threads=1)
    for each in (network, exact.double()):
        each.train(training)
        optimizer = make(list(each.parameters()))
        optimizer.param_groups[0]["lr"] = rate
        for batch in batches:
            torch_step(each, optimizer, options, batch)
    for batch in batches:
        runner.run(batch, rate)
    mine = runner.arrays({n: n for n in step.weights})
    found, own = [], []
    for (key, parameter), (_, precise) in zip(
        network.named_parameters(), exact.named_parameters(), strict=True
    ):
        source, transposed = where.get(key, (key, False))
        if source not in mine:
            continue
        a, b = mine[source].T if transposed else mine[source], parameter.detach().numpy()
        found.append((_apart(a, b), key))
        own.append(_apart(b, precise.detach().numpy()))
    return sorted(found, reverse=True), max(own)


def _apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def speed(name: str, model: Any, data: Any, batch: int, threads: int, rounds: int) -> list[float]:
    """Part 3: samples a second of onnxruntime and of PyTorch, BatchNormalization live in both."""
    case = CASES["AdamW, decay, norm clipped"]
    goal = objective(model, data)
    feed = Source(data, goal).feed(np.arange(batch))
    mode = live(model)
    step = training_step(
        mode.model,
        goal.loss,
        case[0],
        trainable(model),
        feeds={"image": feed["image"][:2]},
        options=case[1],
        running=mode.running,
    )
    runner = Runner(step, threads=threads)
    network, _ = in_torch(name, model)
    network.train()
    torch.set_num_threads(threads)
    optimizer = case[2](list(network.parameters()))
    optimizer.param_groups[0]["lr"] = 1e-5
    sides: list[Callable[[], float]] = [
        lambda: runner.run(feed, 1e-5),
        lambda: torch_step(network, optimizer, case[1], feed),
    ]
    times: list[list[float]] = [[], []]
    for turn in range(rounds + 1):
        for side, run in enumerate(sides):
            began = time.perf_counter()
            for _ in range(5):
                run()
            if turn:
                times[side].append((time.perf_counter() - began) / 5)
    return [batch / float(np.median(each)) for each in times]


def main() -> None:
    """Prints all three parts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5, help="of part 3; 0 leaves it out")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for name in MODELS:
        model = untie(load(ROOT / "models" / f"digits_{name}.onnx"))
        data = read_data(ROOT / "models" / "digits_calib.npz", model)
        goal = objective(model, data)
        source = Source(data, goal)
        random = np.random.default_rng(0)
        batches = [source.feed(random.permutation(len(data))[:32]) for _ in range(arguments.steps)]
        for words, case in CASES.items():
            rate = RATES[type(case[0])]

            def build(
                case: Any = case, model: Any = model, goal: Any = goal, data: Any = data
            ) -> Any:
                return training_step(
                    model,
                    goal.loss,
                    case[0],
                    trainable(model),
                    feeds={"image": data.inputs["image"][:2]},
                    options=case[1],
                )

            given = given_gradients(build(), batches, case[1], case[2], rate)
            apart, own = separately(name, model, build(), batches, case, rate)
            middle = apart[len(apart) // 2][0]
            print(
                f"{name:7} {words:40} same gradients {given:.1e}   apart: largest {apart[0][0]:.1e} "
                f"({apart[0][1]}), then {apart[1][0]:.1e} ({apart[1][1]}), median {middle:.1e}; "
                f"PyTorch from float64: largest {own:.1e}",
                flush=True,
            )
        mode = live(model)
        if mode.running:
            words, case = next(iter(CASES.items()))
            step = training_step(
                mode.model,
                goal.loss,
                case[0],
                trainable(model),
                feeds={"image": data.inputs["image"][:2]},
                options=case[1],
                running=mode.running,
            )
            rate = RATES[type(case[0])]
            apart, own = separately(name, model, step, batches, case, rate, training=True)
            print(
                f"{name:7} BatchNormalization live, {words}: apart: largest {apart[0][0]:.1e} "
                f"({apart[0][1]}), median {apart[len(apart) // 2][0]:.1e}; PyTorch from float64: largest {own:.1e}"
            )
        if not arguments.rounds:
            continue
        test = read_data(ROOT / "models" / "digits.npz", model)
        mine, theirs = speed(
            name, model, test, arguments.batch, arguments.threads, arguments.rounds
        )
        print(
            f"{name:7} samples/s at batch {arguments.batch}, {arguments.threads} threads: onnxruntime "
            f"{mine:.0f}, PyTorch {theirs:.0f}, ratio {mine / theirs:.2f}"
        )


if __name__ == "__main__":
    main()
