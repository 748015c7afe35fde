"""The command line, a file a verb.

Everything heavy is imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from onnxprune.cli.program import main

__all__ = ["main"]
