"""PyTorch's definitions of the optimizers, in float64 numpy: what the graphs are held against.

Written from the pseudocode of `torch.optim.SGD`, `torch.optim.AdamW`, `clip_grad_norm_` and
`clip_grad_value_`; `benchmarks/optimizers_vs_torch.py` holds the graphs against torch itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]


def clip_norm(gradients: Mapping[str, np.ndarray], limit: float) -> Arrays:
    norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
    return {k: g * min(1.0, limit / (norm + 1e-6)) for k, g in gradients.items()}


def clip_value(gradients: Mapping[str, np.ndarray], limit: float) -> Arrays:
    return {k: np.clip(g, -limit, limit) for k, g in gradients.items()}


class SGD:
    def __init__(self, weights: Arrays, momentum: float, nesterov: bool, decay: float) -> None:
        self.weights, self.momentum, self.nesterov, self.decay = weights, momentum, nesterov, decay
        self.buffers: Arrays = {}

    def step(self, gradients: Mapping[str, np.ndarray], rate: float) -> None:
        for name, w in self.weights.items():
            g = gradients[name] + self.decay * w
            if self.momentum:
                first = name not in self.buffers
                self.buffers[name] = g if first else self.momentum * self.buffers[name] + g
                b = self.buffers[name]
                g = g + self.momentum * b if self.nesterov else b
            self.weights[name] = w - rate * g


class AdamW:
    def __init__(
        self, weights: Arrays, decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
    ) -> None:
        self.weights, self.decay, self.b1, self.b2, self.eps = weights, decay, b1, b2, eps
        self.m = {k: np.zeros_like(w) for k, w in weights.items()}
        self.v = {k: np.zeros_like(w) for k, w in weights.items()}
        self.t = 0

    def step(self, gradients: Mapping[str, np.ndarray], rate: float) -> None:
        self.t += 1
        for name, w in self.weights.items():
            g = gradients[name]
            w = w - rate * self.decay * w
            self.m[name] = self.b1 * self.m[name] + (1 - self.b1) * g
            self.v[name] = self.b2 * self.v[name] + (1 - self.b2) * g * g
            denominator = np.sqrt(self.v[name]) / np.sqrt(1 - self.b2**self.t) + self.eps
            self.weights[name] = w - rate / (1 - self.b1**self.t) * self.m[name] / denominator
