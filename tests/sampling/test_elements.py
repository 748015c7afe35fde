from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.autodiff import NoGradientError
from onnxprune.graph import weights
from onnxprune.progress import Silent
from onnxprune.runtime.dataset import make_dataset
from onnxprune.sampling import objective
from onnxprune.sampling.elements import MEAN, element_statistics, target

TEXT = """
    <ir_version: 10, opset_import: ["" : 18]>
    g (float[n, 2] x) => (float[n, 2] y) <float bound = {0.}> {
      total = ReduceSum <keepdims = 0> (x)
      positive = Greater (total, bound)
      y = If (positive) <
        then_branch = t () => (float[n, 2] p) <float[2] w = {1., 2.}, float[2] u = {3., 1.}> {
          q = Mul (x, w)
          p = Mul (q, u)
        },
        else_branch = e () => (float[n, 2] r) <float[2] w = {2., 2.}> { r = Mul (x, w) }
      >
    }
"""


def test_weights_inside_branches_have_statistics_where_their_name_is_theirs_alone() -> None:
    model = ir.from_proto(onnx.parser.parse_model(TEXT))
    found = {w.name: w for w in weights(model)}
    x = np.float32([[1, 2], [-3, 1], [2, 2]])
    data = make_dataset({"x": x}, model, np.zeros((3, 2), np.float32))
    with pytest.raises(NoGradientError, match="'w'"):
        target(model, found["w"])
    (statistics,) = element_statistics(
        model, {"u": found["u"]}, (MEAN,), objective(model, data), data, Silent()
    ).values()
    taken = x[[0, 2]]  # dL/du = 2 y x w, L the sum of squares
    expected = np.abs(2 * taken * [1, 2] * [3, 1] * taken * [1, 2]).sum(0) / 3
    np.testing.assert_allclose(statistics["u"], expected, rtol=1e-5)
