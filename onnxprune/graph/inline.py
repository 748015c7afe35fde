"""Local functions inlined, so that the rest of the program sees one graph."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import PassError, PreconditionError
from onnx_ir.passes.common import InlinePass

from onnxprune.errors import ModelError

__all__ = ["clone", "inline"]


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

    Names inside a body stay where they are unique and get a suffix where not. A function that
    imports another version of an operator set than the model stays a function, since its nodes
    would change their meaning.

    Raises:
        ModelError: The functions call each other in a circle, or take graphs as attributes.
    """
    if not model.functions:
        return model
    copy = clone(model)
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
