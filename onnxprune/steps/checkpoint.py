"""Where progressive pruning has come to, on disk: killed at any moment, the same command goes on from the last step.

    OUT.onnx.checkpoint/
      state.json     whose run it is, the steps done, what is gone of the original
      step-3.onnx    the model after the last of them (and its external data)

The model is written first, then the state that names it, each whole or not at all; so the state never names a model
that is not there. A step goes on from the model as it was read back, in a run that was never interrupted too: both end
with the same bytes. The key ties a checkpoint to the input file, the options, the data and the versions of the
packages; that of another run is never used and never overwritten.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxprune import __version__
from onnxprune.errors import (
    DataError,
    NothingToPruneError,
    OnnxPruneError,
    OptionError,
    ValidationError,
)
from onnxprune.graph import load, save
from onnxprune.graph.load import DATA_FILES, SOURCE
from onnxprune.options import PruneOptions
from onnxprune.report.build import PACKAGES
from onnxprune.report.write import write_json
from onnxprune.runtime.dataset import Dataset

__all__ = ["Checkpoint", "checkpoint_folder", "opened", "run_key"]

FORMAT = "onnxprune-checkpoint/1"
STATE = "state.json"
WRITING_ONLY = ("plan", "report", "dry_run", "check_drift", "check_latency", "checkpoint", "data")
"""Options that change nothing about the model; data count by what is in them, not by where they lie."""
FINAL = (DataError, NothingToPruneError, OptionError, ValidationError)
"""What goes wrong in a run itself, and would again."""


class Checkpoint:
    """A folder that holds one run.

    Args:
        folder: It need not exist.
        key: Of the run, from `run_key`.

    Raises:
        OnnxPruneError: The folder holds another run, or is no checkpoint.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self.folder, self.key = folder, key
        self.state: Mapping[str, Any] = {}
        if folder.exists():
            self.state = self._read()
        else:
            try:
                folder.mkdir()
            except OSError as error:
                raise OnnxPruneError(f"cannot write {folder}: {error.strerror or error}") from error

    @property
    def begun(self) -> bool:
        """Whether a step is done."""
        return bool(self.state)

    def write(self, step: int, model: ir.Model | None, state: Mapping[str, Any]) -> None:
        """Replaces what was there by the model after a step and what is known of the run.

        Args:
            step: The number of the step.
            model: None: the one that is there stays.
            state: As JSON takes it.

        Raises:
            OnnxPruneError: The disk is full, or the folder is gone.
        """
        name = self.state.get("model")
        if model is not None:
            name = f"step-{step}.onnx"
            save(model, self.folder / name)
        content = {"format": FORMAT, "key": self.key, **state, "model": name}
        write_json(content, self.folder / STATE)
        self.state = content
        self._tidy()

    def model(self, original: ir.Model) -> ir.Model:
        """The model after the last step, the original if that is none; it says to come from where the original does."""
        if self.state.get("model") is None:
            return original
        model = load(self.folder / self.state["model"])
        model.meta.update(original.meta)
        return model

    def remove(self) -> None:
        """Takes the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> Mapping[str, Any]:
        path = self.folder / STATE
        try:
            if not path.exists() and all(_is_debris(each) for each in self.folder.iterdir()):
                return {}
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            state = None
        if not isinstance(state, dict) or state.get("format") != FORMAT:
            raise OnnxPruneError(
                f"{self.folder} is no checkpoint of this program: name another folder with --checkpoint"
            )
        if state.get("key") != self.key:
            raise OnnxPruneError(
                f"{self.folder} is the checkpoint of another run (other input, options, data or versions):"
                " give the same command to go on with that, or remove the folder to begin anew"
            )
        return state

    def _tidy(self) -> None:
        """Removes what the state does not name: models of earlier steps, files of a run that was killed."""
        model = self.state.get("model")
        for path in self.folder.iterdir():
            if path.name not in (STATE, model, f"{model}.data"):
                path.unlink(missing_ok=True)


def _is_debris(path: Path) -> bool:
    """A file that a run killed in its first step leaves."""
    return path.name.startswith((f".{STATE}.", ".step-", "step-1.onnx"))


def checkpoint_folder(output: Path, options: PruneOptions) -> Path:
    """The folder asked for, or `OUT.onnx.checkpoint` beside the output."""
    return options.checkpoint or output.with_name(f"{output.name}.checkpoint")


@contextmanager
def opened(folder: Path | None, key: str) -> Iterator[Checkpoint]:
    """The checkpoint in a folder, or in one that nobody sees.

    It is gone at the end. After an interrupt or a full disk it stays where a step is done; not after a failure that
    the same command would come to again.

    Args:
        folder: None where nothing is to be written.
        key: Of the run.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="onnxprune-") as hidden:
            yield Checkpoint(Path(hidden), key)
        return
    checkpoint = Checkpoint(folder, key)
    try:
        yield checkpoint
    except KeyboardInterrupt:
        if not checkpoint.begun:
            checkpoint.remove()
            raise
        raise KeyboardInterrupt(
            f"the same command goes on from the last step, in {folder}"
        ) from None
    except BaseException as error:
        if not checkpoint.begun or isinstance(error, FINAL):
            checkpoint.remove()
        raise
    checkpoint.remove()


def run_key(original: ir.Model, data: Dataset, options: PruneOptions) -> str:
    """What tells one run from another: the bytes of the input, the options, the data, the versions."""
    digest = hashlib.sha256()
    for path in (original.meta[SOURCE], *original.meta.get(DATA_FILES, ())):
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    kept = {k: v for k, v in options.to_dict().items() if k not in WRITING_ONLY}
    versions = {"onnxprune": __version__, **{name: version(name) for name in PACKAGES}}
    digest.update(json.dumps([kept, versions], sort_keys=True, default=str).encode())
    labels = {} if data.labels is None else {"": data.labels}
    for name, array in sorted({**data.inputs, **labels}.items()):
        digest.update(f"{name}{array.dtype}{array.shape}".encode())
        digest.update(_bytes(array))
    return digest.hexdigest()


def _bytes(array: np.ndarray) -> bytes | memoryview:
    if array.dtype.hasobject:
        return repr(array.tolist()).encode()
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
