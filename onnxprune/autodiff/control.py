"""Constants of the bodies of If, Loop and Scan become constants of the model."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.graph import constant

__all__ = ["hoist_constants"]


def hoist_constants(model: ir.Model) -> None:
    """Make the constants inside the bodies of If, Loop and Scan initializers of the main graph, in place.

    They keep their names; where a name is taken (two branches may use the same), the later tensor in
    file order gets a suffix.
    """
    main = model.graph
    taken = {value.name for value in (*main.inputs, *main.initializers.values())}
    taken.update(value.name for node in main for value in node.outputs)
    for graph in list(main.subgraphs()):
        for name in list(graph.initializers):
            value = graph.initializers.pop(name)
            _hoist(main, graph, value, value.const_value, taken)
        for node in list(graph):
            tensor = constant(node.outputs[0]) if node.op_type == "Constant" else None
            if tensor is not None and not isinstance(tensor, ir.StringTensor):
                _hoist(main, graph, node.outputs[0], tensor, taken)
        for node in list(graph):
            if node.op_type == "Constant" and not node.outputs[0].uses():
                graph.remove(node, safe=True)


def _hoist(
    main: ir.Graph,
    graph: ir.Graph,
    old: ir.Value,
    tensor: ir.TensorProtocol | None,
    taken: set[str | None],
) -> None:
    assert tensor is not None
    name = old.name or "constant"
    while name in taken:
        name += "_"
    taken.add(name)
    old.name = None
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    main.register_initializer(value)
    for place, output in enumerate(graph.outputs):
        if output is old:  # a body gives back only what it makes
            passed = ir.node("Identity", [value])
            passed.outputs[0].name = f"{name}/given"
            graph.append(passed)
            graph.outputs[place] = passed.outputs[0]
    ir.convenience.replace_all_uses_with(old, value)
