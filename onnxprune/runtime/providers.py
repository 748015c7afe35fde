"""Names of onnxruntime execution providers, and what each needs to be exact and repeatable.

A user writes `cpu`, `cuda`, `openvino` or the full name `CUDAExecutionProvider`; all providers that
the installed onnxruntime knows are understood, none is listed here by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnxruntime as ort

from onnxprune.errors import ProviderError

__all__ = ["available", "resolve"]

_SUFFIX = "ExecutionProvider"
# TF32 rounds the factors of every product to 11 bits, far more than what pruning has to be checked
# to; the heuristic algorithm search does not pick by timing, so two runs give the same bits.
_OPTIONS: Mapping[str, Mapping[str, str]] = {
    "CUDA" + _SUFFIX: {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"},
}


def available() -> list[str]:
    """Short names of the providers that this installation of onnxruntime can use."""
    return [_short(name) for name in ort.get_available_providers()]


def resolve(names: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Full names and options of the providers, in order; the CPU comes last as the fallback.

    Raises:
        ProviderError: A name is unknown, or names a provider that is not available here.
    """
    known = {_short(name): name for name in ort.get_all_providers()}
    found: list[str] = []
    for name in [*names, "cpu"]:
        full = known.get(_short(name))
        if full is None:
            raise ProviderError(
                f"there is no onnxruntime provider {name!r}; available here: {_listed()}"
            )
        if full not in ort.get_available_providers():
            raise ProviderError(
                f"provider {name!r} is not available on this machine; available: {_listed()}"
                f"{_advice(full)}"
            )
        if full not in found:
            found.append(full)
    return [(name, dict(_OPTIONS.get(name, {}))) for name in found]


def _short(name: str) -> str:
    """`CUDAExecutionProvider` and `cuda` are one name."""
    return name.strip().lower().removesuffix(_SUFFIX.lower())


def _listed() -> str:
    return ", ".join(available())


def _advice(full: str) -> str:
    if full == "CUDA" + _SUFFIX:
        return "; CUDA needs the package onnxruntime-gpu in place of onnxruntime"
    return ""
