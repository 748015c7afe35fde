"""From what the steps found to the rows of a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from onnxprune import __version__
from onnxprune.dims import Dim, Keep, Tracing
from onnxprune.dims.spec import POSITIONS
from onnxprune.graph import file_bytes
from onnxprune.graph.cost import macs, params
from onnxprune.options import PruneOptions, Target
from onnxprune.plan.channels import macs_left
from onnxprune.plan.weight_plan import WeightPlan
from onnxprune.report.data import (
    Check,
    Cost,
    DimRow,
    LayerRow,
    Report,
    StepRow,
    TensorRow,
    TrialRow,
)
from onnxprune.runtime.hardware import channel_step
from onnxprune.runtime.measure import Measured
from onnxprune.validation.compare import Comparison
from onnxprune.validation.equality import TOLERANCE, Equality

__all__ = ["comparison_checks", "latency_note", "nothing_to_prune", "proof_check", "report"]

PACKAGES = ("onnx", "onnxruntime", "onnx-ir", "numpy")


def report(
    command: Literal["prune", "inspect", "validate"],
    input: Path,
    output: Path | None,
    options: PruneOptions,
    *,
    original: ir.Model,
    pruned: ir.Model | None = None,
    measured: Measured | None = None,
    tracing: Tracing | None = None,
    keep: Keep | None = None,
    losses: Mapping[Dim, tuple[float, ...]] | None = None,
    weight_plan: WeightPlan | None = None,
    layers: tuple[LayerRow, ...] = (),
    trials: tuple[TrialRow, ...] = (),
    steps: tuple[StepRow, ...] = (),
    checks: tuple[Check, ...] = (),
    notes: tuple[str, ...] = (),
    timings: Mapping[str, float] | None = None,
) -> Report:
    """Everything that is known, as a report."""
    kept = {dim: int(mask.sum()) for dim, mask in (keep or {}).items()}
    before = Cost(params(original), file_bytes(input), _macs(tracing, {}, original, measured))
    after = None
    if pruned is not None:
        after = Cost(
            params(pruned),
            file_bytes(output) if output is not None and output.exists() else None,
            _macs(tracing, kept, pruned, measured),
            weight_plan.count if weight_plan is not None else None,
        )
    return Report(
        command=command,
        input=str(input),
        output=None if output is None or not output.exists() else str(output),
        options=options.to_dict(),
        before=before,
        after=after,
        dims=_dim_rows(tracing, kept, losses or {}, with_macs=command == "inspect")
        if tracing is not None
        else (),
        tensors=_tensor_rows(weight_plan),
        layers=layers,
        trials=trials,
        steps=steps,
        frozen=_frozen(tracing, options) if tracing is not None else {},
        skipped=dict(weight_plan.skipped) if weight_plan is not None else {},
        checks=checks,
        timings=dict(timings or {}),
        notes=notes,
        versions={"onnxprune": __version__, **{name: version(name) for name in PACKAGES}},
    )


def proof_check(proof: Equality, name: str = "cutting equals masking", **more: int) -> Check:
    """The proof that a cut is exact, as a line of the report, with more figures where there are any."""
    return Check(
        name,
        proof.holds,
        f"largest relative error {proof.error:.1e} on {proof.runs} random inputs (allowed {TOLERANCE:.0e})",
        {
            "relative_error": proof.error,
            "output": proof.output,
            "runs": proof.runs,
            "allowed": TOLERANCE,
            **more,
        },
    )


def comparison_checks(comparison: Comparison | None) -> tuple[Check, ...]:
    """Drift, accuracy and latency, as lines of the report."""
    if comparison is None:
        return ()
    on = f"{comparison.samples} {'random inputs' if comparison.random else 'samples'}"
    checks = []
    if comparison.drift:
        worst = max(comparison.drift, key=lambda each: np.nan_to_num(each.relative_error, nan=-1))
        others = [each.output for each in comparison.drift if each.other_size]
        sizes = f"; {', '.join(others)} came out in other sizes" if others else ""
        decided = "" if np.isnan(worst.agreement) else f"same top-1 {worst.agreement:.1%}, "
        checks.append(
            Check(
                "drift from the original",
                None,
                f"relative error {worst.relative_error:.3f}, cosine {worst.cosine:.4f}, "
                f"{decided}on {on}{sizes}",
                {"outputs": [each.to_dict() for each in comparison.drift]},
            )
        )
    if comparison.before is not None and comparison.after is not None:
        a, b = comparison.before, comparison.after
        checks.append(
            Check(
                "accuracy",
                None,
                f"{a.metric} {a.value:.2%} before, {b.value:.2%} after, on {a.samples} samples",
                {"before": a.to_dict(), "after": b.to_dict()},
            )
        )
    if comparison.speed is not None:
        s = comparison.speed
        checks.append(
            Check(
                "latency",
                None,
                f"{s.before.median_ms:.2f} ms before, {s.after.median_ms:.2f} ms after: {s.ratio:.2f} times "
                f"({s.ratio_p10:.2f} to {s.ratio_p90:.2f}), on {comparison.providers[0]}",
                s.to_dict(),
            )
        )
    return tuple(checks)


def latency_note(target: Target | None, comparison: Comparison | None) -> tuple[str, ...]:
    """What of a target on the latency was reached, as measured in the end; that the result is slower, where it is."""
    speed = None if comparison is None else comparison.speed
    if speed is not None and speed.ratio_p10 > 1:
        return (
            f"the result is slower than the original: a run takes {speed.ratio:.2f} times as long; where channels were"
            f" removed, --round-to {channel_step()} keeps widths that onnxruntime's kernels like",
        )
    if target is None or target.kind != "latency" or speed is None:
        return ()
    off = speed.ratio / target.value - 1
    return (
        f"a run takes {speed.ratio:.3f} of the time it took, {abs(off):.1%} {'more' if off > 0 else 'less'} than the"
        f" {target.value:g} asked for",
    )


def nothing_to_prune(tracing: Tracing, options: PruneOptions) -> str:
    """Why nothing can be cut, most frequent reasons first."""
    if tracing.free(options.allow_inexact):
        return "nothing to prune: every Dim that could be cut is excluded, or keeps its least number of channels"
    reasons = list(_frozen(tracing, options))
    if not reasons:
        return "nothing to prune: the model has no weights with channels of their own"
    return "nothing to prune: " + "; ".join(reasons[:3])


def nothing_to_round(options: PruneOptions) -> str:
    """What to do where Dims are too narrow for the share that is to go."""
    return (
        f"nothing to prune: at sparsity {options.fraction:g} no Dim loses an index after rounding;"
        " raise --sparsity or set --round-to 1"
    )


def _frozen(tracing: Tracing, options: PruneOptions) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for info in tracing.dims:
        if info.dim.frozen and info.dim.frozen.endswith(POSITIONS):
            continue  # kernel positions and the like, which nobody takes for channels
        reason = info.dim.frozen or (None if options.allow_inexact else _inexact(info.dim))
        if reason:
            counts[reason] += info.size
    return dict(counts.most_common())


def _inexact(dim: Dim) -> str | None:
    return f"{dim.inexact} (--allow-inexact cuts it all the same)" if dim.inexact else None


def _dim_rows(
    tracing: Tracing,
    kept: Mapping[Dim, int],
    losses: Mapping[Dim, tuple[float, ...]],
    with_macs: bool,
) -> tuple[DimRow, ...]:
    total = macs_left(tracing, {}) if with_macs else 0
    rows = []
    for info in tracing.dims:
        tensors = {use.weight.name: prod(use.weight.shape) for use, _ in info.slices}
        rows.append(
            DimRow(
                name=info.name,
                size=info.size,
                kept=kept.get(info.dim, info.size),
                params=sum(tensors.values()),
                macs=total - macs_left(tracing, {info.dim: 0}) if with_macs else None,
                reason=info.dim.frozen or "",
                inexact=info.dim.inexact is not None,
                tensors=tuple(tensors),
                losses=losses.get(info.dim, ()),
            )
        )
    return tuple(rows)


def _tensor_rows(plan: WeightPlan | None) -> tuple[TensorRow, ...]:
    if plan is None:
        return ()
    return tuple(TensorRow(name, mask.shape, mask.count) for name, mask in plan.zeroed.items())


def _macs(
    tracing: Tracing | None, kept: Mapping[Dim, int], model: ir.Model, measured: Measured | None
) -> int | None:
    if tracing is not None:
        return macs_left(tracing, kept)
    return macs(model, measured.shapes_in(model)) if measured is not None else None
