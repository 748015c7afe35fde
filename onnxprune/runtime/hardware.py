"""What the kernels of this machine like."""

from __future__ import annotations

import platform
from functools import cache

import numpy as np

__all__ = ["channel_step"]


@cache
def channel_step() -> int:
    """Channels that onnxruntime's CPU kernels work on at once: 16 with AVX-512, 8 otherwise.

    A convolution or matrix product of 65 channels takes as long as one of 80. Source: MLAS blocks channels by the
    width of the vector registers (`MlasNchwcGetBlockSize`); measured in `benchmarks/`.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return 8
    found = np.show_config(mode="dicts")
    simd = found.get("SIMD Extensions", {}) if isinstance(found, dict) else {}
    names = [*simd.get("baseline", ()), *simd.get("found", ())]
    return 16 if any("AVX512" in name or name == "X86_V4" for name in names) else 8
