"""JSON files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from onnxprune.errors import OnnxPruneError

__all__ = ["write_json"]


def write_json(data: Mapping[str, Any], path: str | Path, *, indent: int | None = 2) -> None:
    """Writes the file beside its place and renames it.

    Args:
        data: As JSON takes it; numbers are finite.
        path: The file; replaced if it exists.
        indent: Spaces a level; None: one line.

    Raises:
        OnnxPruneError: It cannot be written.
    """
    path = Path(path)
    text = json.dumps(data, indent=indent, allow_nan=False, ensure_ascii=False) + "\n"
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "x", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError as error:
        raise OnnxPruneError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
