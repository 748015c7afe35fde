"""Walking a model once, in order, with all samples at every place: its values batch by batch, in bounded memory.

A walk holds the values that are alive at one place in the graph (its checkpoint) for all samples; what is more than the
memory allowed waits in a temporary file. To see a value, the nodes from there to it are run, batch by batch. Then the
checkpoint moves on. What does not depend on the samples is never held, but made again. Since of all else only the nodes
after the checkpoint are ever run, weights may change behind the walker's back as long as they are ahead of it: that is
what re-fitting layer by layer needs, at the price of about two runs of the model for each sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx_ir as ir

from onnxprune.errors import ModelError
from onnxprune.graph.flow import fed_values, last_uses, read_values
from onnxprune.runtime.dataset import Dataset
from onnxprune.runtime.sessions import run, session
from onnxprune.runtime.shelf import AtHand, Kept, Shelf

__all__ = ["MEMORY", "Walk"]

MEMORY = 1 << 30
"""Bytes of values that a walk holds in memory between two places."""
BATCH = 8
"""Samples a run."""

Values = dict[ir.Value, Kept]


class Walk:
    """A model with all samples at one place in it.

    Args:
        model: The model; of its main graph, nodes ahead of the walk may be given new weights while it goes on.
        parts: The samples, in one part or several.
        providers: onnxruntime providers by name.
        memory: Bytes of values held in memory.
    """

    def __init__(
        self,
        model: ir.Model,
        parts: Sequence[Dataset],
        providers: Sequence[str] = ("cpu",),
        memory: int = MEMORY,
    ) -> None:
        self.model, self.providers = model, providers
        self._shelf = Shelf(memory)
        self.nodes = list(model.graph)
        self.place = {node: k for k, node in enumerate(self.nodes)}
        self.last = last_uses(model.graph)
        self.fed = fed_values(model.graph)
        inputs = {value.name: value for value in model.graph.inputs}
        self.part_of = [k for k, part in enumerate(parts) for _ in part.batch_rows(BATCH)]
        self.alive: list[Values] = [
            {inputs[name]: AtHand(array) for name, array in feed.items()}
            for part in parts
            for feed in part.batches(BATCH)
        ]
        self.at = 0

    def values(
        self, wanted: Sequence[ir.Value], part: int | None = None
    ) -> Iterator[list[np.ndarray]]:
        """Values, batch by batch; the nodes that make them must not be behind the checkpoint's last use of them.

        Args:
            wanted: The values.
            part: Of which part of the samples; None: of all.

        Raises:
            ModelError: onnxruntime does not run the nodes.
        """
        held = [value for value in wanted if value in self.alive[0]]
        made = [value for value in dict.fromkeys(wanted) if value not in self.alive[0]]
        rest = self._nodes_for(made) if made else None
        for number, values in zip(self.part_of, self.alive, strict=True):
            if part is not None and number != part:
                continue
            found = {value: values[value].read() for value in held}
            if rest is not None:
                found.update(rest(values))
            yield [found[value] for value in wanted]

    def is_past(self, node: ir.Node) -> bool:
        """Whether the checkpoint is behind a node already."""
        return self.at > self.place[node]

    def advance(self, node: ir.Node) -> None:
        """Moves the checkpoint to just before a node."""
        target = self.place[node]
        if target <= self.at:
            return
        needed = self._needed(target)
        new = [value for value in needed if value not in self.alive[0]]
        over = [value for value in self.alive[0] if value not in set(needed)]
        rest = self._nodes_for(new) if new else None
        for values in self.alive:
            made = {} if rest is None else rest(values)
            for value in over:  # first, to make room for those that come
                del values[value]
            values.update({value: self._keep(array) for value, array in made.items()})
        self.at = target

    def _keep(self, value: np.ndarray) -> Kept:
        plain = isinstance(value, np.ndarray) and value.dtype.kind != "O"
        return self._shelf.keep(value) if plain else AtHand(value)

    def _needed(self, target: int) -> list[ir.Value]:
        """The values made before a place (or fed) that are read at it or after."""
        made = [v for node in self.nodes[self.at : target] for v in node.outputs if v in self.fed]
        return [v for v in (*self.alive[0], *made) if self.last.get(v, -1) >= target]

    def _nodes_for(self, wanted: Sequence[ir.Value]) -> _Nodes:
        """The nodes between the checkpoint and some values, as a model of their own."""
        queue, chosen = list(wanted), set[ir.Node]()
        takes: dict[ir.Value, None] = {}
        weights: dict[ir.Value, None] = {}
        while queue:
            value = queue.pop()
            node = value.producer()
            if value in self.alive[0]:
                takes[value] = None
            elif node is not None and node.graph is self.model.graph:
                if node not in chosen:
                    chosen.add(node)
                    queue += read_values(node)
            elif value.const_value is not None:
                weights[value] = None
            else:
                raise ModelError(f"the value {value.name!r} cannot be computed from what is held")
        nodes = sorted(
            chosen, key=lambda node: self.place.get(node, -1)
        )  # -1: a constant added since
        return _Nodes(self, nodes, list(takes), list(weights), list(wanted))


class _Nodes:
    """Some nodes as an onnxruntime session."""

    def __init__(
        self,
        walk: Walk,
        nodes: Sequence[ir.Node],
        takes: Sequence[ir.Value],
        weights: Sequence[ir.Value],
        gives: Sequence[ir.Value],
    ) -> None:
        graph = walk.model.graph
        view = ir.GraphView(
            takes,
            gives,
            nodes=nodes,
            initializers=weights,
            opset_imports=graph.opset_imports,
            name=graph.name,
        ).clone()
        for value, copy in zip(takes, view.inputs, strict=True):
            array = walk.alive[0][value].read()
            copy.const_value = None
            copy.type, copy.shape = ir.TensorType(ir.DataType.from_numpy(array.dtype)), None
        for value in view.outputs:
            value.shape = None
        functions = [function.clone() for function in walk.model.functions.values()]
        model = ir.Model(view, ir_version=max(walk.model.ir_version, 4), functions=functions)
        self.session = session(model, walk.providers)
        self.takes, self.gives = takes, gives

    def __call__(self, values: Values) -> dict[ir.Value, np.ndarray]:
        feed = {value.name or "": values[value].read() for value in self.takes}
        results = run(self.session, feed)
        return dict(zip(self.gives, results, strict=True))
