from __future__ import annotations

import onnxruntime as ort
import pytest

from onnxprune.errors import ProviderError
from onnxprune.runtime.providers import available, resolve

CPU = "CPUExecutionProvider"


@pytest.mark.parametrize("name", ["cpu", "CPU", CPU, " cpu "])
def test_short_and_full_names_are_one(name: str) -> None:
    assert [full for full, _ in resolve([name])] == [CPU]


def test_the_cpu_is_always_the_last_resort() -> None:
    assert [full for full, _ in resolve([])] == [CPU]


def test_available_are_short_names() -> None:
    assert "cpu" in available()
    assert len(available()) == len(ort.get_available_providers())


def test_unknown_provider() -> None:
    with pytest.raises(
        ProviderError, match=r"no onnxruntime provider 'gpu9'; available here: .*cpu"
    ):
        resolve(["gpu9"])


@pytest.mark.skipif("CUDAExecutionProvider" in ort.get_available_providers(), reason="CUDA is here")
def test_provider_that_is_not_installed() -> None:
    with pytest.raises(ProviderError, match=r"'cuda' is not available.*: .*cpu.*onnxruntime-gpu"):
        resolve(["cuda", "cpu"])


def test_order_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["CUDAExecutionProvider", CPU]
    monkeypatch.setattr(ort, "get_available_providers", lambda: both)
    assert [full for full, _ in resolve(["cuda"])] == both
    assert [full for full, _ in resolve(["cpu", "cuda"])] == both[::-1]
    assert dict(resolve(["cuda"]))["CUDAExecutionProvider"]["use_tf32"] == "0"
