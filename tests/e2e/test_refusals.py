"""What cannot be done is one line, the right exit code, and nothing left behind."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.dims.exact import build
from tests.e2e.conftest import Run


def save(path: Path, text: str, **weights: object) -> Path:
    opset = weights.pop("opset", 17)
    onnx.save(build(text, opset=opset, **weights), path)
    return path


BAD = {
    "integers only": (
        "(int64[N,2] x) => (int64[N,2] y) { a = MatMul(x, w) y = MatMul(a, w) }",
        {"w": np.ones((2, 2), np.int64)},
        "nothing to prune",
    ),
    "no weights": ("(float[N,6] x) => (float[N,6] y) { y = Relu(x) }", {}, "nothing to prune"),
    "interface only": (
        "(float[N,6] x) => (float[N,5] y) { y = MatMul(x, w) }",
        {"w": (6, 5)},
        "it feeds graph output y",
    ),
    "NaN": (
        "(float[N,2] x) => (float[N,2] y) { a = MatMul(x, w) y = MatMul(a, v) }",
        {"w": np.full((2, 4), np.nan, "f4"), "v": (4, 2)},
        "'w' has NaN values",
    ),
    "an op that is not known": (
        "(float[N,6] x) => (float[N,6] y) { y = com.acme.Foo(x) }",
        {},
        "onnxruntime does not load",
    ),
    "an opset that is not known": (
        "(float[N,6] x) => (float[N,6] y) { y = Relu(x) }",
        {"opset": 99},
        "onnxruntime does not load",
    ),
    "shapes that do not fit": (
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w) y = MatMul(a, v) }",
        {"w": (7, 8), "v": (8, 5)},
        "onnxruntime",
    ),
}


@pytest.mark.parametrize(("text", "weights", "expected"), BAD.values(), ids=BAD)
def test_what_cannot_be_pruned_is_one_line(
    run: Run, tmp_path: Path, text: str, weights: dict[str, object], expected: str
) -> None:
    source, out = save(tmp_path / "in.onnx", text, **weights), tmp_path / "out.onnx"
    before = source.read_bytes()
    code, said, err = run(source, out)
    assert (code, said) == (1, "")
    assert err.startswith("error: ")
    assert expected in err
    assert len(err.splitlines()) == 1
    assert source.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


@pytest.mark.parametrize("output", ["missing/out.onnx", ".", "file/out.onnx"])
def test_places_that_cannot_be_written(run: Run, small: Path, output: str) -> None:
    small.with_name("file").write_text("")
    code, _, err = run(small, small.parent / output, "--round-to", 1)
    assert code == 1
    assert err.startswith("error: cannot write")
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in small.parent.iterdir()) == ["file", "in.onnx"]


@pytest.mark.parametrize("option", ["--plan", "--report"])
@pytest.mark.parametrize("place", ["missing/x.json", "folder.json"])
def test_a_plan_or_report_that_cannot_be_written_is_said_before_any_work(
    run: Run, small: Path, option: str, place: str
) -> None:
    small.with_name("folder.json").mkdir()
    code, said, err = run(small, small.with_name("out.onnx"), option, small.parent / place)
    assert (code, said) == (1, "")
    assert err.startswith("error: cannot write")
    assert len(err.splitlines()) == 1
    assert sorted(path.name for path in small.parent.iterdir()) == ["folder.json", "in.onnx"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left")])
def test_a_stop_in_the_middle_of_saving_leaves_nothing_behind(
    run: Run, small: Path, stop: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = small.read_bytes()

    def stopped(*_args: object) -> None:
        raise stop

    monkeypatch.setattr("os.replace", stopped)
    out, plan, report = (small.with_name(name) for name in ("o.onnx", "p.json", "r.json"))
    code, said, err = run(small, out, "--plan", plan, "--report", report, "--round-to", 1)
    assert (code, said) == (130 if stop is KeyboardInterrupt else 1, "")
    assert len(err.splitlines()) == 1
    assert "interrupted" in err if code == 130 else "No space left" in err
    assert [path.name for path in small.parent.iterdir()] == ["in.onnx"]
    assert small.read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "short", "above", "absolute", "link"])
def test_external_data_that_is_not_there(run: Run, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    source, data = folder / "in.onnx", folder / "in.data"
    model = build(
        "(float[N,6] x) => (float[N,5] y) { a = MatMul(x, w1) y = MatMul(a, w2) }",
        w1=(6, 16),
        w2=(16, 5),
    )
    onnx.save(model, source, save_as_external_data=True, location="in.data", size_threshold=0)
    outside = tmp_path / "outside.data"
    outside.write_bytes(data.read_bytes())
    if damage == "missing":
        data.unlink()
    elif damage == "short":
        data.write_bytes(data.read_bytes()[:-8])
    elif damage == "link":
        data.unlink()
        data.symlink_to(outside)
    else:
        proto = onnx.load(source, load_external_data=False)
        for tensor in proto.graph.initializer:
            entry = next(e for e in tensor.external_data if e.key == "location")
            entry.value = "../outside.data" if damage == "above" else str(outside)
        source.write_bytes(proto.SerializeToString())
    out = tmp_path / "out.onnx"
    code, said, err = run(source, out, "--round-to", 1)
    assert (code, said) == (1, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert "data" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "outside.data"]
