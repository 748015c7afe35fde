"""The program from Python: the same steps as the command line, the report as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnxprune import pipeline
from onnxprune.errors import OptionError
from onnxprune.graph import check_target, same_file
from onnxprune.options import PruneOptions, check_report
from onnxprune.progress import Progress, Silent
from onnxprune.report import Report, write_report

__all__ = ["finetune", "inspect", "prune", "run_prune", "validate"]


def prune(input: str | Path, output: str | Path | None = None, **options: Any) -> Report:
    """Prunes a model file.

    Args:
        input: The model to read; stays untouched.
        output: Where the pruned model goes; may be left out with `dry_run=True`.
        **options: Fields of `PruneOptions` by name; the granularity and paths may be strings.

    Returns:
        What was done and measured.

    Raises:
        OptionError: An option makes no sense, or `output` is `input`.
        OnnxPruneError: The model cannot be read, has nothing to prune, or the result fails its validation; then
            nothing is written.

    Examples:
        >>> report = onnxprune.prune("in.onnx", "out.onnx", sparsity=0.3, exclude=["head.*"])
        >>> report.after.params / report.before.params
        0.52
    """
    return run_prune(
        Path(input), None if output is None else Path(output), PruneOptions.of(**options)
    )


def run_prune(
    input: Path, output: Path | None, options: PruneOptions, progress: Progress | None = None
) -> Report:
    """`prune` with options made before; writes the report file that they name."""
    _check_paths(input, output, options)
    report = pipeline.prune(input, output, options, progress=progress or Silent())
    if options.report is not None:
        write_report(report, options.report)
    return report


def inspect(input: str | Path, progress: Progress | None = None, **options: Any) -> Report:
    """What of a model can be cut, what not and why, and what it costs.

    Args:
        input: The model to read.
        progress: Where long work is shown.
        **options: Fields of `PruneOptions` by name.
    """
    chosen = PruneOptions.of(**options)
    _check_files({"the input": Path(input), "the data": chosen.data}, {"the report": chosen.report})
    report = pipeline.inspect(Path(input), chosen, progress=progress or Silent())
    if chosen.report is not None:
        write_report(report, chosen.report)
    return report


def validate(
    before: str | Path, after: str | Path, progress: Progress | None = None, **options: Any
) -> Report:
    """Drift, accuracy and latency of one model against another.

    Args:
        before: The model to compare with.
        after: The model in question.
        progress: Where long work is shown.
        **options: Of `PruneOptions`: data, providers, seed, report, check_drift, check_latency.
    """
    chosen = PruneOptions.of(**options)
    read = {"the first model": Path(before), "the second": Path(after), "the data": chosen.data}
    _check_files(read, {"the report": chosen.report})
    report = pipeline.validate(Path(before), Path(after), chosen, progress=progress or Silent())
    if chosen.report is not None:
        write_report(report, chosen.report)
    return report


def finetune(
    input: str | Path,
    output: str | Path,
    data: str | Path,
    teacher: str | Path | None = None,
    *,
    evaluation: str | Path | None = None,
    report: str | Path | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Trains a model file; `onnxprune.train.finetune` does the same with a model in memory.

    Args:
        input: The model to train; stays untouched.
        output: Where the trained model goes.
        data: Samples to train on, with labels or without.
        teacher: The original model, whose outputs are to be followed; needed without labels.
        evaluation: Other samples to compare the model on, before and after.
        report: Where to write the report, .json or .html.
        progress: Where long work is shown.
        **options: Fields of `onnxprune.train.TrainOptions` by name.

    Raises:
        OptionError: An option makes no sense, or one file would overwrite another.
        OnnxPruneError: See `onnxprune.pipeline.finetune`; nothing is written then.
    """
    from onnxprune.train.options import make_options

    chosen = make_options(**options)
    source, target = Path(input), Path(output)
    original = None if teacher is None else Path(teacher)
    tests = None if evaluation is None else Path(evaluation)
    page = None if report is None else Path(report)
    if page is not None:
        check_report(page)
    read = {"the input": source, "the data": Path(data), "the teacher": original}
    _check_files(
        {**read, "the evaluation's data": tests}, {"the output": target, "the report": page}
    )
    found = pipeline.finetune(
        source,
        target,
        Path(data),
        chosen,
        teacher=original,
        evaluation=tests,
        report=page,
        progress=progress or Silent(),
    )
    if page is not None:
        write_report(found, page)
    return found


def _check_paths(input: Path, output: Path | None, options: PruneOptions) -> None:
    """Raises OptionError where two of the files are one, OnnxPruneError where one cannot be written."""
    if output is None and not options.dry_run:
        raise OptionError("no output file: name one, or ask for a dry run")
    written = {
        "the output": None if options.dry_run else output,
        "the plan": options.plan,
        "the report": options.report,
    }
    read = {"the input": input, "the data": options.data}
    _check_files({**read, "the output": output if options.dry_run else None}, written)


def _check_files(read: Mapping[str, Path | None], written: Mapping[str, Path | None]) -> None:
    """Raises OptionError where a file that is written is one of the others, OnnxPruneError where it cannot be."""
    seen = dict(read)
    for role, path in written.items():
        for other_role, other in seen.items():
            if path is not None and other is not None and same_file(path, other):
                raise OptionError(
                    f"{role} would overwrite {other_role}, {other}: name another file"
                )
        if path is not None:
            check_target(path)
        seen[role] = path
