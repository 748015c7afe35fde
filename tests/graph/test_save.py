from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest

from onnxprune.errors import OnnxPruneError
from onnxprune.graph import data_file, load, replace, same_file, save, weights
from tests.graph.files import ZOO, branches, called_twice, saved, two_layers, with_external_data
from tests.models import random

FAILING = """
import sys
import numpy as np, onnx_ir as ir
from onnxprune.errors import OnnxPruneError
from onnxprune.graph import load, replace, save, weights
model = load(sys.argv[1])
weight = weights(model)[-1]
def fail():
    {failure}
    return ir.tensor(np.zeros(weight.shape, np.float32))
lazy = ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=ir.Shape(weight.shape), name="b")
replace(weight, lazy)
try:
    save(model, sys.argv[2])
except OnnxPruneError as error:
    sys.exit(f"error: {{error}}")
"""


def lazily_failing(model: ir.Model, error: BaseException) -> None:
    """Makes the last weight raise when it is written, after the first is on disk."""
    weight = weights(model)[-1]

    def fail() -> ir.TensorProtocol:
        raise error

    shape = ir.Shape(weight.shape)
    replace(weight, ir.LazyTensor(fail, dtype=ir.DataType.FLOAT, shape=shape))


def outputs(path: Path) -> np.ndarray:
    made = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return made.run(None, {"x": random(3, 16)})[0]


def test_round_trip_inside_one_file(tmp_path: Path) -> None:
    source = saved(two_layers(), tmp_path)
    save(load(source), tmp_path / "out.onnx")
    assert not data_file(tmp_path / "out.onnx").exists()
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(source))


def test_round_trip_with_external_data_into_another_folder(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = with_external_data(tmp_path / "in")
    target = tmp_path / "out" / "model.onnx"
    save(load(source), target)
    assert {path.name for path in target.parent.iterdir()} == {"model.onnx", "model.onnx.data"}
    expected = outputs(source)
    (tmp_path / "in" / "weights.bin").unlink()
    onnx.checker.check_model(target, full_check=True)
    np.testing.assert_array_equal(outputs(target), expected)


@pytest.mark.parametrize("build", [two_layers, branches, called_twice])
def test_keeps_versions_names_and_metadata(tmp_path: Path, build: object) -> None:
    proto = build()  # type: ignore[operator]
    proto.ir_version, proto.producer_name, proto.model_version = 8, "someone", 7
    onnx.helper.set_model_props(proto, {"author": "a", "licence": "b"})
    proto.graph.doc_string = "what it is"
    save(load(saved(proto, tmp_path)), tmp_path / "out.onnx")
    out = onnx.load(tmp_path / "out.onnx")
    for field in ("ir_version", "producer_name", "model_version", "opset_import", "metadata_props"):
        assert getattr(out, field) == getattr(proto, field)
    assert out.graph.doc_string == proto.graph.doc_string
    assert out.graph.input == proto.graph.input
    assert out.graph.output == proto.graph.output
    assert [n.name for n in out.graph.node] == [n.name for n in proto.graph.node]
    assert [f.name for f in out.functions] == [f.name for f in proto.functions]


@pytest.mark.parametrize("external", [False, True])
def test_same_model_same_bytes(tmp_path: Path, external: bool) -> None:
    source = with_external_data(tmp_path) if external else saved(two_layers(), tmp_path)
    contents = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        save(load(source), tmp_path / folder / "out.onnx")
        contents.append([p.read_bytes() for p in sorted((tmp_path / folder).iterdir())])
    assert contents[0] == contents[1]
    assert len(contents[0]) == 1 + external


def test_the_model_in_memory_stays_as_it_was(tmp_path: Path) -> None:
    model = load(with_external_data(tmp_path))
    before = [weight.value.const_value for weight in weights(model)]
    save(model, tmp_path / "out.onnx")
    assert [weight.value.const_value for weight in weights(model)] == before


def test_every_lazy_weight_is_evaluated_once(tmp_path: Path) -> None:
    model = load(with_external_data(tmp_path))
    evaluated: list[str] = []
    for weight in weights(model):
        array = weight.array() * 2

        def make(name: str = weight.name, array: np.ndarray = array) -> ir.TensorProtocol:
            evaluated.append(name)
            return ir.tensor(array)

        shape = ir.Shape(weight.shape)
        replace(weight, ir.LazyTensor(make, dtype=ir.DataType.FLOAT, shape=shape))
    save(model, tmp_path / "out.onnx")
    assert evaluated == ["a", "b"]
    np.testing.assert_allclose(
        outputs(tmp_path / "out.onnx"), outputs(tmp_path / "model.onnx") * 4, rtol=1e-5
    )


def test_external_data_of_attributes_move_into_the_file(tmp_path: Path) -> None:
    proto = branches()
    (constant,) = [n for n in proto.graph.node[0].attribute[0].g.node if n.op_type == "Constant"]
    tensor = constant.attribute[0].t
    (tmp_path / "c.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "c.bin", 0, len(tensor.raw_data))
    tensor.ClearField("raw_data")
    model = load(saved(proto, tmp_path))
    (tmp_path / "out").mkdir()
    save(model, tmp_path / "out" / "out.onnx")
    found = [weight.array() for weight in weights(load(tmp_path / "out" / "out.onnx"))]
    np.testing.assert_array_equal(np.stack(found), [[3] * 4, [2] * 4])


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("external", [False, True])
def test_a_stop_in_the_middle_leaves_everything_as_it_was(
    tmp_path: Path, error: BaseException, external: bool
) -> None:
    source = with_external_data(tmp_path) if external else saved(two_layers(), tmp_path)
    target = tmp_path / "out.onnx"
    target.write_bytes(b"old")
    data_file(target).write_bytes(b"old data")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    model = load(source)
    lazily_failing(model, error)
    with pytest.raises((KeyboardInterrupt, OnnxPruneError)) as caught:
        save(model, target)
    if isinstance(error, OSError):
        assert str(caught.value) == (
            f"cannot write {target}: No space left on device; nothing was written"
        )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_ctrl_c_in_another_process(tmp_path: Path) -> None:
    source = with_external_data(tmp_path)
    target = tmp_path / "out.onnx"
    script = (  # what runs in the background is born deaf to it
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        + FAILING.format(failure="print('now', flush=True); import time; time.sleep(30)")
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(source), str(target)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "now\n"
        process.send_signal(signal.SIGINT)
        process.wait(20)
    assert process.returncode
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "weights.bin"}


@pytest.mark.skipif(os.name != "posix", reason="resource limits")
@pytest.mark.parametrize("external", [False, True])
def test_disk_full_in_another_process(tmp_path: Path, external: bool) -> None:
    source = with_external_data(tmp_path) if external else saved(two_layers(), tmp_path)
    target = tmp_path / "out.onnx"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    done = subprocess.run(
        [sys.executable, "-c", FAILING.format(failure=limit), str(source), str(target)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == f"error: cannot write {target}: File too large; nothing was written\n"
    assert not list(tmp_path.glob("*out*")) + list(tmp_path.glob(".*"))


def test_what_a_killed_process_left_goes_and_what_another_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    left, used = (tmp_path / f".out.onnx.{name}.tmp" for name in ("0123abcd", "4567abcd"))
    other = tmp_path / ".out.onnx.notes.tmp"
    for file in (left, used, other):
        file.write_bytes(b"part of a model")
    with open(used, "rb") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        save(load(saved(two_layers(), tmp_path)), path)
    assert not left.exists()
    assert used.exists()
    assert other.exists()


def test_a_target_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(OnnxPruneError, match="is a directory"):
        save(load(saved(two_layers(), tmp_path)), tmp_path)


def test_a_target_in_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OnnxPruneError, match="does not exist"):
        save(load(saved(two_layers(), tmp_path)), tmp_path / "none" / "out.onnx")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_target_that_is_a_device(tmp_path: Path) -> None:
    with pytest.raises(OnnxPruneError, match="not a regular file"):
        save(load(saved(two_layers(), tmp_path)), "/dev/full")
    assert Path("/dev/full").is_char_device()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_target_in_a_protected_folder(tmp_path: Path) -> None:
    model = load(saved(two_layers(), tmp_path))
    folder = tmp_path / "protected"
    folder.mkdir(mode=0o555)
    with pytest.raises(OnnxPruneError, match="Permission denied"):
        save(model, folder / "out.onnx")


@pytest.mark.parametrize("name", ["weights.bin", "weights"])
def test_the_inputs_data_are_not_overwritten(tmp_path: Path, name: str) -> None:
    source = with_external_data(tmp_path)
    if name == "weights":
        content = source.read_bytes().replace(b"weights.bin", b"weightsdata")
        source.write_bytes(content.replace(b"weightsdata", b"weights.dat"))
        (tmp_path / "weights.bin").rename(tmp_path / "weights.dat")
        (tmp_path / "weights.data").symlink_to("weights.dat")
    model = load(source)
    with pytest.raises(OnnxPruneError, match="which the input needs"):
        save(model, tmp_path / name)
    load(source)


def test_replaces_an_older_result_and_keeps_its_permissions(tmp_path: Path) -> None:
    source = with_external_data(tmp_path)
    target = tmp_path / "out.onnx"
    save(load(source), target)
    target.chmod(0o640)
    model = load(source)
    replace(weights(model)[0], np.zeros((16, 64), np.float32))
    save(model, target)
    assert not outputs(target).any()
    assert target.stat().st_mode & 0o777 == 0o640


def test_large_tensors_start_on_a_page(tmp_path: Path) -> None:
    source = with_external_data(tmp_path, width=40_000)
    save(load(source), tmp_path / "out.onnx")
    model = load(tmp_path / "out.onnx")
    offsets = [weight.value.const_value.offset for weight in weights(model)]
    assert [offset % 4096 for offset in offsets] == [0, 0]
    np.testing.assert_array_equal(outputs(tmp_path / "out.onnx"), outputs(source))


def test_same_file(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    (tmp_path / "link.onnx").symlink_to(path)
    assert same_file(path, tmp_path / "link.onnx")
    assert same_file(tmp_path / "new", tmp_path / "." / "new")
    assert not same_file(path, tmp_path / "new")


@pytest.mark.skipif(not ZOO.exists(), reason="no models to try")
def test_real_models_keep_their_weights(tmp_path: Path) -> None:
    paths = [path for path in sorted(ZOO.glob("*.onnx")) if path.stat().st_size < 800_000]
    assert paths
    for path in paths:
        if not onnx.load(path, load_external_data=False).opset_import:
            continue
        model = load(path)
        save(model, tmp_path / "out.onnx")
        again = weights(load(tmp_path / "out.onnx"))
        assert len(again) == len(weights(model)), path.name
        for before, after in zip(weights(model), again, strict=True):
            assert (before.name, before.kind) == (after.name, after.kind), path.name
            np.testing.assert_array_equal(before.array(), after.array(), err_msg=path.name)
