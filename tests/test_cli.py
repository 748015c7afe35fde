from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxprune import api, cli
from onnxprune.errors import ModelError, ValidationError
from onnxprune.options import PruneOptions
from onnxprune.report import Cost, Report
from onnxprune.scores import criterion_names
from tests.models import DIGITS

RESNET = DIGITS / "digits_resnet.onnx"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = cli.main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def pruned(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, Path | None, PruneOptions]]:
    """Calls of the pipeline, which does nothing."""
    calls = []

    def prune(
        input: Path, output: Path | None, options: PruneOptions, progress: Any = None
    ) -> Report:
        calls.append((input, output, options))
        return Report(command="prune", input=str(input), output=str(output), before=Cost(10))

    monkeypatch.setattr(api.pipeline, "prune", prune)
    return calls


def program(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    root = Path(cli.__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "onnxprune", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, **more)


def test_help_names_every_form_option_and_criterion(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    for word in ("inspect", "validate", "--sparsity", "--granularity", "--plan", "--dry-run"):
        assert word in out
    for name in criterion_names():
        assert name in out


def test_help_loads_nothing_heavy_and_answers_at_once() -> None:
    code = (
        "import sys; from onnxprune.cli import main; main(['--help']);"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'onnx_ir', 'rich'} & set(sys.modules);"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    start = time.perf_counter()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert time.perf_counter() - start < 2  # 0.1 s on an idle machine


def test_no_arguments_print_the_help_and_count_as_wrong_usage(run: Run) -> None:
    code, _, err = run()
    assert code == 2
    assert "Usage: onnxprune IN.onnx OUT.onnx" in err


@pytest.mark.parametrize("first", ["prune", None])
def test_prune_is_the_default_verb(run: Run, pruned: list[Any], first: str | None) -> None:
    verb = () if first is None else (first,)
    code, out, err = run(
        *verb, "-s", "0.25", RESNET, "out.onnx", "--exclude", "a", "--exclude", "b"
    )
    assert (code, err) == (0, "")
    assert str(RESNET) in out
    ((input_, output, options),) = pruned
    assert (input_, output) == (RESNET, Path("out.onnx"))
    assert options == PruneOptions.of(sparsity=0.25, exclude=["a", "b"])


def test_every_option_reaches_the_pipeline(run: Run, pruned: list[Any], tmp_path: Path) -> None:
    plan, report = tmp_path / "p.json", tmp_path / "r.json"
    chosen = {
        "granularity": "weight",
        "threshold": 0.5,
        "criterion": "l1",
        "scope": "global",
        "data": "d.npz",
        "min-channels": 4,
        "round-to": 8,
        "provider": "cuda",
        "seed": 7,
        "plan": plan,
        "report": report,
        "recover": "none",
        "shape": "image=1x1x8x8",
    }
    flags = ["--allow-inexact", "--sparse-format", "--no-latency", "--quiet"]
    words = [word for name, value in chosen.items() for word in (f"--{name}", value)]
    code, out, _ = run(RESNET, "out.onnx", *words, *flags)
    assert (code, out) == (0, "")
    assert pruned[0][2] == PruneOptions.of(
        granularity="weight",
        threshold=0.5,
        recover="none",
        criterion="l1",
        scope="global",
        data="d.npz",
        min_channels=4,
        round_to=8,
        providers=["cuda"],
        seed=7,
        plan=plan,
        report=report,
        allow_inexact=True,
        sparse_format=True,
        check_latency=False,
        shapes={"image": (1, 1, 8, 8)},
    )
    assert report.exists()


def test_from_python_it_is_the_same(pruned: list[Any]) -> None:
    import onnxprune

    report = onnxprune.prune(str(RESNET), "out.onnx", granularity="2:4", exclude="head*")
    assert isinstance(report, onnxprune.Report)
    assert pruned[0][2] == PruneOptions.of(granularity="2:4", exclude=["head*"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--sparsity", "1"],
        ["--sparsity", "7"],
        ["--sparsity", "nan"],
        ["--sparsity", "-0.1"],
        ["--sparsity", "half"],
        ["--granularity", "2:1"],
        ["--granularity", "nonsense"],
        ["--criterion", "nonsense"],
        ["--scope", "nonsense"],
        ["--recover", "nonsense"],
        ["--round-to", "0"],
        ["--nonsense"],
        ["third.onnx"],
        ["--shape", "image"],
        ["--report", "report.xyz"],
        ["--plan", "out.onnx"],
        ["--report", str(RESNET.with_suffix(".onnx"))],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    run: Run, pruned: list[Any], arguments: list[str]
) -> None:
    code, out, err = run(RESNET, "out.onnx", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert not pruned


def test_the_output_must_be_another_file_and_named(
    run: Run, pruned: list[Any], tmp_path: Path
) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(RESNET)
    for output in (RESNET, link):
        code, _, err = run(RESNET, output)
        assert code == 2
        assert "would overwrite the input" in err
    code, _, err = run(RESNET)
    assert code == 2
    assert "no output file" in err
    assert not pruned
    assert run(RESNET, "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (ModelError("in.onnx is no\n ONNX file"), 1, "error: in.onnx is no ONNX file"),
        (ValidationError("cut is not mask"), 1, "error: cut is not mask"),
        (MemoryError(), 1, "error: out of memory"),
        (OSError(28, "No space left on device", "out.onnx"), 1, "error: out.onnx: No space left"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_goes_wrong_is_one_line(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, expected: str
) -> None:
    def fail(*_arguments: object, **_more: object) -> Report:
        raise error

    monkeypatch.setattr(api.pipeline, "prune", fail)
    got, out, err = run(RESNET, "out.onnx")
    assert (got, out) == (code, "")
    assert err.startswith(expected)
    assert len(err.splitlines()) == 1


def test_a_reader_who_leaves_early_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    code = (
        "import sys; from onnxprune import api, cli; from onnxprune.report import *;"
        "rows = tuple(TensorRow(f't{i}', (4,), 2) for i in range(20000));"
        "api.pipeline.prune = lambda *a, **k: Report(command='prune', input='x', tensors=rows);"
        "sys.exit(cli.main(['in.onnx', 'out.onnx', '--verbose']))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="closes a descriptor in a shell")
@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_output_is_no_error(tmp_path: Path, closed: str) -> None:
    command = [sys.executable, "-m", "onnxprune", RESNET, tmp_path / "out.onnx", "--dry-run"]
    result = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *map(str, command)], capture_output=True
    )
    assert (result.returncode, result.stderr) == (0, b"")


@pytest.mark.parametrize("content", [None, b"", b"not onnx at all"])
@pytest.mark.parametrize("verb", ["prune", "inspect"])
def test_bad_files_are_one_line_and_exit_code_1(
    tmp_path: Path, content: bytes | None, verb: str
) -> None:
    bad, out = tmp_path / "bad.onnx", tmp_path / "out.onnx"
    if content is not None:
        bad.write_bytes(content)
    result = program(verb, bad, *([out] if verb == "prune" else []))
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert "bad.onnx" in result.stderr
    assert not out.exists()


def test_the_module_runs_as_a_program() -> None:
    result = program("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("onnxprune, version 0.")
