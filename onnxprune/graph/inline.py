"""Local functions inlined, so that the rest of the program sees one graph."""

from __future__ import annotations

from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import PassError, PreconditionError
from onnx_ir.passes.common import InlinePass

from onnxprune.errors import ModelError
from onnxprune.graph.weights import weights

__all__ = ["NAMES", "clone", "inline"]

NAMES = "tensor names"
"""Key in `model.meta`: the names that stand for one constant tensor of the file; absent if there were no functions."""


def clone(model: ir.Model) -> ir.Model:
    """A copy with the same tensors, `model.meta` included (`ir.Model.clone` drops it)."""
    try:
        copy = model.clone()
    except RuntimeError as error:
        raise ModelError("a node reads a value that nothing in the model makes") from error
    copy.meta.update(model.meta)
    return copy


def inline(model: ir.Model) -> ir.Model:
    """The model with its local functions replaced by their bodies; itself if it has none.

    Names inside a body stay where they are unique and get a suffix where not; of several constant tensors of one name
    the last in file order keeps it, unless its function is called more than once. A function that
    imports another version of an operator set than the model stays a function, since its nodes
    would change their meaning.

    Raises:
        ModelError: The functions call each other in a circle, or take graphs as attributes.
    """
    if not model.functions:
        return model
    copy = clone(model)
    copy.meta[NAMES] = _rename_ambiguous(copy)
    imports = dict(copy.opset_imports)

    def compatible(function: ir.Function) -> bool:
        return all(
            imports.setdefault(domain, version) == version
            for domain, version in function.opset_imports.items()
        )

    try:
        InlinePass(criteria=compatible)(copy)
    except (PassError, PreconditionError, ValueError) as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        raise ModelError(f"the model's local functions cannot be inlined: {root}") from error
    return copy


def _rename_ambiguous(model: ir.Model) -> frozenset[str]:
    """Gives constants inside functions whose name stands for several tensors another; returns the names that do not."""
    calls = Counter(
        node.op_identifier()
        for graph in (*model.graphs(), *(function.graph for function in model.functions.values()))
        for node in graph
    )
    once = {f.graph for f in model.functions.values() if calls[f.identifier()] == 1}
    found = weights(model)
    last = {weight.name: weight.value for weight in found}
    clear = set(last)
    inside = {function.graph for function in model.functions.values()}
    for k, weight in enumerate(found):
        if (
            weight.graph in inside
            and weight.value is last[weight.name]
            and weight.graph not in once
        ):
            clear.discard(weight.name)
        if weight.graph in inside and (
            weight.value is not last[weight.name] or weight.graph not in once
        ):
            weight.value.name = f"{weight.name}/shared{k}"
    return frozenset(clear)
