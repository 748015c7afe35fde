from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import ModelError
from onnxprune.graph import load, save, weights
from tests.dims.exact import build
from tests.graph.files import info, model, saved, two_layers


def refused(path: Path) -> str:
    """The message of the refusal, which must be one line and name the file."""
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    return message


def test_missing_file(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "none.onnx")


def test_directory(tmp_path: Path) -> None:
    assert "is a directory" in refused(tmp_path)


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").touch()
    assert "is empty" in refused(tmp_path / "empty.onnx")


@pytest.mark.parametrize("content", [b"hello world\n" * 50, bytes(1000), b"\x89PNG\r\n\x1a\n"])
def test_other_kinds_of_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    assert "not an ONNX model" in refused(path)


def test_git_lfs_pointer(tmp_path: Path) -> None:
    path = tmp_path / "pointer.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    assert "git lfs pull" in refused(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_truncated(tmp_path: Path, share: float) -> None:
    whole = two_layers().SerializeToString()
    path = tmp_path / "cut.onnx"
    path.write_bytes(whole[: int(len(whole) * share)])
    refused(path)


def test_cut_between_the_graph_and_the_opsets(tmp_path: Path) -> None:
    proto = two_layers()
    del proto.opset_import[:]
    assert "imports no operator set" in refused(saved(proto, tmp_path))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    path.chmod(0)
    assert "Permission denied" in refused(path)


def test_nodes_are_put_in_order(tmp_path: Path) -> None:
    proto = two_layers()
    proto.graph.node.reverse()
    order = [node.name for node in load(saved(proto, tmp_path)).graph]
    assert order == ["first", "relu", "second"]


def test_a_circle_is_refused(tmp_path: Path) -> None:
    proto = two_layers()
    proto.graph.node[1].input[0] = "y"
    assert "in a circle" in refused(saved(proto, tmp_path))


def test_a_value_that_nothing_makes_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    proto = two_layers()
    proto.graph.node[1].input[0] = "elsewhere"
    assert "Relu 'relu' reads 'elsewhere'" in refused(saved(proto, tmp_path))
    assert not caplog.records


def test_training_info_is_refused(tmp_path: Path) -> None:
    proto = two_layers()
    proto.training_info.add()
    assert "training_info" in refused(saved(proto, tmp_path))


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers_become_dense(tmp_path: Path, flat: bool) -> None:
    proto = two_layers(8)
    dense = np.zeros((16, 8), np.float32)
    dense[[2, 5], [7, 0]] = [1.5, -2.0]
    indices = np.array([23, 40] if flat else [[2, 7], [5, 0]], np.int64)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1.5, -2.0]), "a"),
        numpy_helper.from_array(indices, "a_indices"),
        [16, 8],
    )
    del proto.graph.initializer[0]
    proto.graph.sparse_initializer.append(sparse)
    found = {weight.name: weight.array() for weight in weights(load(saved(proto, tmp_path)))}
    np.testing.assert_array_equal(found["a"], dense)


def test_invalid_sparse_initializer(tmp_path: Path) -> None:
    proto = two_layers(8)
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([1.0]), "a"),
        numpy_helper.from_array(np.array([128], np.int64), "a_indices"),
        [16, 8],
    )
    proto.graph.sparse_initializer.append(sparse)
    assert "'a' is invalid" in refused(saved(proto, tmp_path))


def test_sparse_constants_become_dense(tmp_path: Path) -> None:
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.float32([4.0]), "v"),
        numpy_helper.from_array(np.array([1], np.int64), "i"),
        [3],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    proto = model(helper.make_graph(nodes, "g", [info("x", 3)], [info("y", 3)]))
    (weight,) = weights(load(saved(proto, tmp_path)))
    np.testing.assert_array_equal(weight.array(), [0, 4, 0])


def test_map_outputs_survive(tmp_path: Path) -> None:
    keys = {"classlabels_int64s": [0, 1, 2], "domain": "ai.onnx.ml"}
    node = helper.make_node("ZipMap", ["x"], ["y"], **keys)
    kind = helper.make_map_type_proto(
        TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    )
    output = helper.make_value_info("y", helper.make_sequence_type_proto(kind))
    proto = model(helper.make_graph([node], "g", [info("x", "n", 3)], [output]))
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    save(load(saved(proto, tmp_path)), tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").graph.output[0].type == output.type


def test_the_source_is_remembered(tmp_path: Path) -> None:
    path = saved(two_layers(), tmp_path)
    loaded = load(str(path))
    assert loaded.meta["source"] == path
    assert loaded.meta["data_files"] == ()


def test_the_default_domain_has_one_name(tmp_path: Path) -> None:
    model = build("(float[N,6] x) => (float[N,3] y) { a = MatMul(x, w) y = Relu(a) }", w=(6, 3))
    del model.opset_import[:]
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx", 13))
    model.graph.node[0].domain = "ai.onnx"
    onnx.save(model, tmp_path / "m.onnx")
    found = load(tmp_path / "m.onnx")
    assert found.opset_imports == {"": 13}
    assert {node.domain for node in found.graph} == {""}
