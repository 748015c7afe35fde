"""Files that tell of a run, there whole or not at all, alone or together with what they tell of."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.report.data import Report
from onnxprune.report.page import page

__all__ = ["pending_json", "write_json", "write_report"]


def write_report(report: Report, path: str | Path) -> None:
    """Writes a report as what its file is named after: data (`.json`) or a page for a browser (`.html`).

    Raises:
        OnnxPruneError: It cannot be written.
    """
    if Path(path).suffix.lower() == ".html":
        with _pending(page(report), Path(path)):
            pass
    else:
        write_json(report.to_dict(), path)


def write_json(data: Mapping[str, Any], path: str | Path, *, indent: int | None = 2) -> None:
    """Writes the file beside its place and renames it.

    Args:
        data: As JSON takes it; numbers are finite.
        path: The file; replaced if it exists.
        indent: Spaces a level; None: one line.

    Raises:
        OnnxPruneError: It cannot be written.
    """
    with pending_json(data, path, indent=indent):
        pass


@contextmanager
def pending_json(
    data: Mapping[str, Any], path: str | Path | None, *, indent: int | None = 2
) -> Iterator[None]:
    """Writes the file beside its place at once, and renames it when the context is left without an error.

    Args:
        data: See `write_json`.
        path: Likewise; None: nothing is written.
        indent: Likewise.

    Raises:
        OnnxPruneError: It cannot be written.
    """
    if path is None:
        yield
        return
    text = json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    with _pending(text, Path(path)):
        yield


@contextmanager
def _pending(text: str, path: Path) -> Iterator[None]:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with _named(path), open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        yield
        with _named(path):
            os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """What the system says, with the name of the file."""
    try:
        yield
    except OSError as error:
        raise OnnxPruneError(f"cannot write {path}: {error.strerror or error}") from error
